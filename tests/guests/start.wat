;; A handler that never gets to its first job: its start function does not return.
(module
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32) (result i32)
    (i32.const 0))
  (func $spin (loop $for-ever (br $for-ever)))
  (start $spin)
)
