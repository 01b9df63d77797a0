;; Tries to leave something behind for the next attempt, and looks for what an earlier one left: in its globals, in its table, and in
;; all of its memory, to the last byte that it can get. Completes with how many such marks it found.
(module
  (memory (export "memory") 2)
  (table $table 1 32 funcref)
  (elem declare func $mark)
  (global $free (mut i32) (i32.const 65536))
  (global $left (mut i32) (i32.const 0))

  (func $mark)

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (if (i32.gt_u (global.get $free) (i32.const 131072)) (then (unreachable)))
    (local.get $start))

  ;; From the second half of the second page on: what stands before is what it was given.
  (func $look (result i32)
    (local $at i32) (local $end i32) (local $found i32)
    (local.set $at (i32.const 98304))
    (local.set $end (i32.shl (memory.size) (i32.const 16)))
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0))
        (then (local.set $found (i32.add (local.get $found) (i32.const 1)))))
      (i64.store (local.get $at) (i64.const 0x6d61726b6d61726b))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
    (local.get $found))

  (func $write (param $number i32) (param $end i32) (result i32)
    (loop $next
      (local.set $end (i32.sub (local.get $end) (i32.const 1)))
      (i32.store8 (local.get $end) (i32.add (i32.rem_u (local.get $number) (i32.const 10)) (i32.const 48)))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (br_if $next (local.get $number)))
    (local.get $end))

  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32)
    (result i32)
    (local $found i32) (local $at i32)
    (local.set $found (global.get $left))
    (global.set $left (i32.const 1))
    (local.set $found (i32.add (local.get $found) (i32.sub (table.size $table) (i32.const 1))))
    (drop (table.grow $table (ref.func $mark) (i32.const 1)))
    ;; Within what it may have without asking, and then beyond: 4 MiB at a time, as far as that goes.
    (local.set $found (i32.add (local.get $found) (call $look)))
    (drop (memory.grow (i32.const 64)))
    (local.set $found (i32.add (local.get $found) (call $look)))
    (local.set $found (i32.sub (local.get $found) (i32.const 4096)))
    (local.set $at (call $write (local.get $found) (i32.const 640)))
    (i32.store (i32.const 8) (i32.const 1))
    (i32.store (i32.const 12) (local.get $at))
    (i32.store (i32.const 16) (i32.sub (i32.const 640) (local.get $at)))
    (i32.const 0))
)
