;; Says that it was started, and completes.
(module
  (import "sandhog:jobs/log@1.0.0" "log" (func $log (param $level i32) (param $text i32) (param $length i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 1024) "started")

  ;; Has room for one small job.
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size))))

  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32) (result i32)
    ;; At level info, the third.
    (call $log (i32.const 2) (i32.const 1024) (i32.const 7))
    (i32.const 0))
)
