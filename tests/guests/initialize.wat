;; A handler whose instances are made, or are not, by a throw of dice: in half of them `_initialize` does not return. Built for
;; WASI preview 1, as `preview1.wat` is.
(module
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))

  ;; 0: the answer, `ok(complete(none))` as it is. 64: the dice.
  (memory (export "memory") 4)
  (global $free (mut i32) (i32.const 65536))
  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size))))
  (func (export "_initialize")
    (drop (call $random (i32.const 64) (i32.const 1)))
    (if (i32.and (i32.load8_u (i32.const 64)) (i32.const 1))
      (then (loop $for-ever (br $for-ever)))))
  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32) (result i32)
    (i32.const 0))
)
