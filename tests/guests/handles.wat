;; A handler that asks for its stderr for ever and never drops what it is given.
(module
  (import "wasi:cli/stderr@0.2.0" "get-stderr" (func $get-stderr (result i32)))
  (memory (export "memory") 2)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  (func (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32) (result i32)
    (loop $for-ever (drop (call $get-stderr)) (br $for-ever))
    (unreachable))
)
