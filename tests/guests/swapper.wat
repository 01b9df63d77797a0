;; A handler that keeps a text, by the second draft of keys and values. The last letter in its body says what it does:
;;
;; a     appends a letter to what it saw, if that is still so, and completes with the length
;; s     the same, but writes between the look and the swap, which must fail; completes with the length that it is told then
;; d     takes one from a number, and completes with 0 if that is negative
(module
  (import "wasi:keyvalue/store@0.2.0-draft2" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft2" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "[static]cas.new" (func $look (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "[method]cas.current" (func $current (param i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "swap" (func $swap (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft2" "increment" (func $increment (param i32 i32 i32 i64 i32)))

  ;; 0: the answer. 512: the store's answer. 1024: the key. 4096: digits. 65536: what is allocated.
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (global $out (mut i32) (i32.const 4096))
  (data (i32.const 1024) "text")
  (data (i32.const 1032) "less")

  (func $allocate (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
    (result i32)
    (local $start i32)
    (local.set $start (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.set $free (i32.add (local.get $start) (local.get $size)))
    (local.get $start))

  (func $put-number (param $number i32)
    (if (i32.ge_u (local.get $number) (i32.const 10))
      (then (call $put-number (i32.div_u (local.get $number) (i32.const 10)))))
    (i32.store8 (global.get $out) (i32.add (i32.rem_u (local.get $number) (i32.const 10)) (i32.const 48)))
    (global.set $out (i32.add (global.get $out) (i32.const 1))))

  ;; ok(complete(some(number)))
  (func $complete-number (param $number i32) (result i32)
    (call $put-number (local.get $number))
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 0))
    (i32.store (i32.const 8) (i32.const 1))
    (i32.store (i32.const 12) (i32.const 4096))
    (i32.store (i32.const 16) (i32.sub (global.get $out) (i32.const 4096)))
    (i32.const 0))

  (func $must (if (i32.load8_u (i32.const 512)) (then (unreachable))))

  (func $handle-job (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param $id i32) (param $id-length i32) (param $type i32) (param $type-length i32)
    (param $text i32) (param $text-length i32)
    (param $attempt i32) (param $failures i32) (param $max-failures i32)
    (param $enqueued-at-ms i64) (param $timeout-ms i32)
    (param $metadata i32) (param $metadata-length i32)
    (result i32)
    (local $word i32) (local $bucket i32) (local $cas i32) (local $length i32)
    (local.set $word (i32.load8_u (i32.sub (i32.add (local.get $text) (local.get $text-length)) (i32.const 3))))
    (call $open (i32.const 0) (i32.const 0) (i32.const 512))
    (call $must)
    (local.set $bucket (i32.load (i32.const 516)))
    (if (i32.eq (local.get $word) (i32.const 0x64))
      (then
        (call $increment (local.get $bucket) (i32.const 1032) (i32.const 4) (i64.const -1) (i32.const 512))
        (call $must)
        (return (call $complete-number (i64.ge_s (i64.load (i32.const 520)) (i64.const 0))))))
    (call $look (local.get $bucket) (i32.const 1024) (i32.const 4) (i32.const 512))
    (call $must)
    (local.set $cas (i32.load (i32.const 516)))
    (call $current (local.get $cas) (i32.const 512))
    (call $must)
    (if (i32.load8_u (i32.const 516)) (then (local.set $length (i32.load (i32.const 524)))))
    (local.set $length (i32.add (local.get $length) (i32.const 1)))
    (if (i32.eq (local.get $word) (i32.const 0x73))
      (then
        (call $set (local.get $bucket) (i32.const 1024) (i32.const 4) (i32.const 0) (i32.const 7) (i32.const 512))
        (call $must)))
    (call $swap (local.get $cas) (i32.const 8192) (local.get $length) (i32.const 512))
    (if (i32.load8_u (i32.const 512))
      (then
        ;; cas-failed, with a new look
        (if (i32.ne (i32.load8_u (i32.const 516)) (i32.const 1)) (then (unreachable)))
        (call $current (i32.load (i32.const 520)) (i32.const 512))
        (call $must)
        (return (call $complete-number (i32.load (i32.const 524))))))
    (call $complete-number (local.get $length)))
)
