;; A handler that was built for WASI preview 1, as C, Go and others are: a core module that carries its type and needs the
;; adapter. It does what the first letter of its body says, or of its command, as in `{"do":"x"}`.
;;
;; x   exits with code 3
;; e   writes `Traceback:`, `  line 1` and `ValueError: boom` to stderr, the last without its end, and traps
;; o   writes the line `hello` to stdout and completes
;; f   writes to stdout for ever
;; s   sleeps for an hour
;; n   sleeps for a millisecond, for ever
(module
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))

  ;; 0: the answer, `ok(complete(none))` as it is. 64: a vector of one buffer. 80: what was written. 128: a subscription to
  ;; the clock, its kind at 136, the clock at 144, the time at 152. 256: an event. 1024: texts. 65536: what is allocated,
  ;; a page of which is the adapter's.
  (memory (export "memory") 4)
  (global $free (mut i32) (i32.const 65536))
  (data (i32.const 1024) "Traceback:\n  line 1\nValueError: boom")
  (data (i32.const 1088) "hello\n")

  (func (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get $size))))

  (func $put (param $file i32) (param $text i32) (param $length i32)
    (i32.store (i32.const 64) (local.get $text))
    (i32.store (i32.const 68) (local.get $length))
    (drop (call $write (local.get $file) (i32.const 64) (i32.const 1) (i32.const 80))))

  (func $sleep (param $nanoseconds i64)
    (i32.store8 (i32.const 136) (i32.const 0))
    (i32.store (i32.const 144) (i32.const 1))
    (i64.store (i32.const 152) (local.get $nanoseconds))
    (drop (call $poll (i32.const 128) (i32.const 256) (i32.const 1) (i32.const 80))))

  (func $handle-job (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param i32 i32 i32 i32) (param $body i32) (param $body-length i32) (param i32 i32 i32 i64 i32 i32 i32) (result i32)
    (local $word i32)
    (local.set $word (i32.load8_u (local.get $body)))
    (if (i32.eq (local.get $word) (i32.const 0x7b)) (then (local.set $word (i32.load8_u offset=7 (local.get $body)))))
    (if (i32.eq (local.get $word) (i32.const 0x78)) (then (call $exit (i32.const 3))))
    (if (i32.eq (local.get $word) (i32.const 0x65))
      (then (call $put (i32.const 2) (i32.const 1024) (i32.const 36)) (unreachable)))
    (if (i32.eq (local.get $word) (i32.const 0x6f))
      (then (call $put (i32.const 1) (i32.const 1088) (i32.const 6)) (return (i32.const 0))))
    (if (i32.eq (local.get $word) (i32.const 0x66))
      (then (loop $for-ever (call $put (i32.const 1) (i32.const 1088) (i32.const 6)) (br $for-ever))))
    (if (i32.eq (local.get $word) (i32.const 0x73))
      (then (call $sleep (i64.const 3_600_000_000_000))))
    (if (i32.eq (local.get $word) (i32.const 0x6e))
      (then (loop $for-ever (call $sleep (i64.const 1_000_000)) (br $for-ever))))
    (unreachable))
)
