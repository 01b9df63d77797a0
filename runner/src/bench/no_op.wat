;; Reads its body, every byte of it, and completes: the least that a handler can do.
(module
  (memory (export "memory") 2)
  ;; Tells one copy of this handler from another.
  (global $number i32 (i32.const 0))
  (global $free (mut i32) (i32.const 65536))

  ;; Hands out memory and never takes it back: an instance lives for one job.
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (local $start i32) (local $missing i32)
    (local.set $start
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (local.set $missing (i32.sub (global.get $free) (i32.shl (memory.size) (i32.const 16))))
    (if (i32.gt_s (local.get $missing) (i32.const 0))
      (then
        (if (i32.eq
              (memory.grow (i32.shr_u (i32.add (local.get $missing) (i32.const 65535)) (i32.const 16)))
              (i32.const -1))
          (then unreachable))))
    (local.get $start))

  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param $id i32) (param $id-length i32) (param $type i32) (param $type-length i32)
    (param $body i32) (param $body-length i32) (param $attempt i32) (param $failures i32) (param $max-failures i32)
    (param $enqueued-at i64) (param $timeout i32) (param $metadata i32) (param $metadata-length i32)
    (result i32)
    (local $end i32) (local $sum i32)
    (local.set $sum (global.get $number))
    (local.set $end (i32.add (local.get $body) (local.get $body-length)))
    (block $done
      (loop $next
        (br_if $done (i32.eq (local.get $body) (local.get $end)))
        (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get $body))))
        (local.set $body (i32.add (local.get $body) (i32.const 1)))
        (br $next)))
    ;; Kept, so that no compiler can leave the reading out.
    (i32.store (i32.const 1024) (local.get $sum))
    ;; Zeros at 0: complete, without a result.
    (i32.const 0))
)
