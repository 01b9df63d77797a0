;; Says in its log what it was given, whatever its body, and completes: the id, the type, the body (its first 4,000 bytes), and then
;; the name and the value of each pair of its metadata, each of these in a line of its own.
(module
  (import "sandhog:jobs/log@1.0.0" "log" (func $log (param $level i32) (param $text i32) (param $length i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32)
    (local.set $start (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (loop $room
      (if (i32.gt_u (global.get $free) (i32.shl (memory.size) (i32.const 16)))
        (then
          (if (i32.eq (memory.grow (i32.const 16)) (i32.const -1)) (then (unreachable)))
          (br $room))))
    (local.get $start))

  (func $say (param $text i32) (param $length i32)
    (call $log (i32.const 2) (local.get $text) (local.get $length)))

  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param $id i32) (param $id-length i32) (param $type i32) (param $type-length i32)
    (param $body i32) (param $body-length i32)
    (param i32 i32 i32 i64 i32)
    (param $pairs i32) (param $left i32)
    (result i32)
    (call $say (local.get $id) (local.get $id-length))
    (call $say (local.get $type) (local.get $type-length))
    (if (i32.gt_u (local.get $body-length) (i32.const 4000)) (then (local.set $body-length (i32.const 4000))))
    (call $say (local.get $body) (local.get $body-length))
    (block $end
      (loop $next
        (br_if $end (i32.eqz (local.get $left)))
        (call $say (i32.load (local.get $pairs)) (i32.load offset=4 (local.get $pairs)))
        (call $say (i32.load offset=8 (local.get $pairs)) (i32.load offset=12 (local.get $pairs)))
        (local.set $pairs (i32.add (local.get $pairs) (i32.const 16)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next)))
    (i32.const 0))
)
