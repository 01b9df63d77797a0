;; Enqueues one job for the built-in handler, and completes.
(module
  (import "sandhog:jobs/queue@1.0.0" "enqueue" (func $enqueue (param i32 i32 i32 i32) (param $answer i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 1024) "{\"job_type\":\"built-in\",\"n\":123,\"a\":1,\"pad\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}")

  ;; Has room for one small job, and for an id.
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size))))

  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32) (result i32)
    (call $enqueue (i32.const 1024) (i32.const 121) (i32.const 0) (i32.const 0) (i32.const 512))
    ;; Not taken, it would be no measurement.
    (if (i32.load (i32.const 512)) (then unreachable))
    (i32.const 0))
)
