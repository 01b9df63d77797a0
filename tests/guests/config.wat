;; Answers the value that its configuration, `wasi:config`, has under the name of the job's type, or nothing.
(module
  (import "wasi:config/store@0.2.0-rc.1" "get" (func $get (param $key i32) (param $length i32) (param $answer i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size))))

  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param $id i32) (param $id-length i32) (param $type i32) (param $type-length i32)
    (param i32 i32 i32 i32 i32 i64 i32 i32 i32) (result i32)
    ;; At 64: ok or err, then whether there is a value, where, and how long.
    (call $get (local.get $type) (local.get $type-length) (i32.const 64))
    (if (i32.load8_u (i32.const 64)) (then (unreachable)))
    ;; At 0: ok; complete; whether there is a result, where, and how long.
    (i32.store8 offset=8 (i32.const 0) (i32.load8_u (i32.const 68)))
    (i32.store offset=12 (i32.const 0) (i32.load (i32.const 72)))
    (i32.store offset=16 (i32.const 0) (i32.load (i32.const 76)))
    (i32.const 0))
)
