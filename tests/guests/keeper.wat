;; A handler that keeps counters. The first word of the command behind `"do":"` in its body says what it does, and the second
;; is a key.
;;
;; count KEY             increments the key's number and completes with the sum
;; err KEY, reject KEY   the same, but fails, or rejects, with `boom`
;; retry KEY             the same, but asks for a retry, at once, which completes as `get KEY` does
;; trap KEY              the same, but traps
;; slow KEY              logs `begun`, increments, counts to 200 millions and completes with the sum
;; get KEY               completes with the value, or without a result where there is none
;; set KEY               puts 4 KiB there, and completes
;; drop KEY              deletes it, and completes
;; keys                  completes with how many keys there are
;; bucket                opens a bucket that there is not
;; Where the store refuses something, it fails with what that says.
(module
  (import "sandhog:jobs/log@1.0.0" "log" (func $log (param $level i32) (param $text i32) (param $length i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "open" (func $open (param i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.get" (func $get (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.set" (func $set (param i32 i32 i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.delete" (func $delete (param i32 i32 i32 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[method]bucket.list-keys" (func $list (param i32 i32 i64 i32)))
  (import "wasi:keyvalue/store@0.2.0-draft" "[resource-drop]bucket" (func $drop-bucket (param i32)))
  (import "wasi:keyvalue/atomics@0.2.0-draft" "increment" (func $increment (param i32 i32 i32 i64 i32)))

  ;; 0: the answer. 512: the store's answer. 1024: words. 2048: texts. 8192: 4 KiB of nothing. 65536: what is allocated.
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 65536))
  (global $body (mut i32) (i32.const 0))
  (global $body-length (mut i32) (i32.const 0))
  (global $out (mut i32) (i32.const 0))
  (global $bucket (mut i32) (i32.const 0))
  (global $key (mut i32) (i32.const 0))
  (global $key-length (mut i32) (i32.const 0))

  (data (i32.const 1024) "count")
  (data (i32.const 1056) "err")
  (data (i32.const 1088) "trap")
  (data (i32.const 1120) "reject")
  (data (i32.const 1152) "retry")
  (data (i32.const 1184) "slow")
  (data (i32.const 1216) "get")
  (data (i32.const 1248) "set")
  (data (i32.const 1280) "keys")
  (data (i32.const 1312) "bucket")
  (data (i32.const 1344) "drop")
  (data (i32.const 2048) "boom")
  (data (i32.const 2064) "begun")
  (data (i32.const 2080) "other")
  (data (i32.const 2112) "no-such-store")
  (data (i32.const 2144) "access-denied")
  (data (i32.const 2224) "\"do\":\"")

  (func $allocate (export "cabi_realloc") (param $old i32) (param $old-size i32) (param $align i32) (param $size i32)
    (result i32)
    (local $start i32) (local $end i32)
    (local.set $start
      (i32.and
        (i32.add (global.get $free) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (local.set $end (i32.add (local.get $start) (local.get $size)))
    (if (i32.gt_u (local.get $end) (i32.shl (memory.size) (i32.const 16)))
      (then
        (if (i32.eq
              (memory.grow
                (i32.shr_u (i32.add (i32.sub (local.get $end) (i32.shl (memory.size) (i32.const 16))) (i32.const 65535))
                  (i32.const 16)))
              (i32.const -1))
          (then (unreachable)))))
    (global.set $free (local.get $end))
    (local.get $start))

  ;; Lets $body be the command: what stands behind `"do":"` to the next quote.
  (func $find-command
    (local $at i32) (local $last i32) (local $compared i32)
    (local.set $at (global.get $body))
    (local.set $last (i32.add (global.get $body) (global.get $body-length)))
    (block $nowhere
      (loop $search
        (br_if $nowhere (i32.gt_u (i32.add (local.get $at) (i32.const 6)) (local.get $last)))
        (local.set $compared (i32.const 0))
        (block $differs
          (loop $compare
            (br_if $differs
              (i32.ne
                (i32.load8_u (i32.add (local.get $at) (local.get $compared)))
                (i32.load8_u (i32.add (i32.const 2224) (local.get $compared)))))
            (local.set $compared (i32.add (local.get $compared) (i32.const 1)))
            (br_if $compare (i32.lt_u (local.get $compared) (i32.const 6))))
          (global.set $body (i32.add (local.get $at) (i32.const 6)))
          (local.set $at (global.get $body))
          (loop $quote
            (if (i32.and
                  (i32.lt_u (local.get $at) (local.get $last))
                  (i32.ne (i32.load8_u (local.get $at)) (i32.const 0x22)))
              (then (local.set $at (i32.add (local.get $at) (i32.const 1))) (br $quote))))
          (global.set $body-length (i32.sub (local.get $at) (global.get $body)))
          (return))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $search))))

  ;; Whether the command's first word is this one.
  (func $says (param $word i32) (param $length i32) (result i32)
    (local $at i32)
    (if (i32.lt_u (global.get $body-length) (local.get $length)) (then (return (i32.const 0))))
    (loop $next
      (if (i32.ne
            (i32.load8_u (i32.add (global.get $body) (local.get $at)))
            (i32.load8_u (i32.add (local.get $word) (local.get $at))))
        (then (return (i32.const 0))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (local.get $length))))
    (if (i32.eq (global.get $body-length) (local.get $length)) (then (return (i32.const 1))))
    (i32.eq (i32.load8_u (i32.add (global.get $body) (local.get $length))) (i32.const 32)))

  ;; Where the command goes on after its first word.
  (func $rest (result i32)
    (local $at i32)
    (loop $next
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next
        (i32.and
          (i32.lt_u (local.get $at) (global.get $body-length))
          (i32.ne (i32.load8_u (i32.add (global.get $body) (local.get $at))) (i32.const 32)))))
    (i32.add (i32.add (global.get $body) (local.get $at)) (i32.const 1)))

  ;; Adds a number, in decimal digits.
  (func $put-number (param $number i64)
    (if (i64.ge_u (local.get $number) (i64.const 10))
      (then (call $put-number (i64.div_u (local.get $number) (i64.const 10)))))
    (i32.store8 (global.get $out)
      (i32.add (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10))) (i32.const 48)))
    (global.set $out (i32.add (global.get $out) (i32.const 1))))

  (func $count (param $millions i32)
    (local $left i64)
    (local.set $left (i64.mul (i64.extend_i32_u (local.get $millions)) (i64.const 1000000)))
    (loop $next
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $next (i64.gt_s (local.get $left) (i64.const 0)))))

  ;; ok(complete(some(text)))
  (func $complete-with (param $text i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 0))
    (i32.store (i32.const 8) (i32.const 1))
    (i32.store (i32.const 12) (local.get $text))
    (i32.store (i32.const 16) (local.get $length))
    (i32.const 0))

  ;; ok(complete(none))
  (func $complete (result i32)
    (drop (call $complete-with (i32.const 0) (i32.const 0)))
    (i32.store (i32.const 8) (i32.const 0))
    (i32.const 0))

  ;; ok(complete(some(number)))
  (func $complete-number (param $number i64) (result i32)
    (global.set $out (i32.const 4096))
    (call $put-number (local.get $number))
    (call $complete-with (i32.const 4096) (i32.sub (global.get $out) (i32.const 4096))))

  ;; ok(reject("boom"))
  (func $reject (result i32)
    (drop (call $complete-with (i32.const 0) (i32.const 0)))
    (i32.store (i32.const 4) (i32.const 2))
    (i32.store (i32.const 8) (i32.const 2048))
    (i32.store (i32.const 12) (i32.const 4))
    (i32.const 0))

  ;; ok(retry({ some(0), some(`"do":"get KEY"`), none }))
  (func $retry (result i32)
    (memory.copy (i32.const 4096) (i32.const 2224) (i32.const 6))
    (memory.copy (i32.const 4102) (i32.const 1216) (i32.const 3))
    (i32.store8 (i32.const 4105) (i32.const 32))
    (memory.copy (i32.const 4106) (global.get $key) (global.get $key-length))
    (i32.store8 (i32.add (i32.const 4106) (global.get $key-length)) (i32.const 34))
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 1))
    (i32.store (i32.const 8) (i32.const 1))
    (i32.store (i32.const 12) (i32.const 0))
    (i32.store (i32.const 16) (i32.const 1))
    (i32.store (i32.const 20) (i32.const 4096))
    (i32.store (i32.const 24) (i32.add (global.get $key-length) (i32.const 11)))
    (i32.store (i32.const 28) (i32.const 0))
    (i32.const 0))

  ;; err(text)
  (func $fail-with (param $text i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (i32.const 1))
    (i32.store (i32.const 4) (local.get $text))
    (i32.store (i32.const 8) (local.get $length))
    (i32.const 0))

  ;; err(what the store answered), whose error stands at $at
  (func $refused (param $at i32) (result i32)
    (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 0))
      (then (return (call $fail-with (i32.const 2112) (i32.const 13)))))
    (if (i32.eq (i32.load8_u (local.get $at)) (i32.const 1))
      (then (return (call $fail-with (i32.const 2144) (i32.const 13)))))
    (call $fail-with (i32.load offset=4 (local.get $at)) (i32.load offset=8 (local.get $at))))

  (func $handle-job (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param $id i32) (param $id-length i32) (param $type i32) (param $type-length i32)
    (param $text i32) (param $text-length i32)
    (param $attempt i32) (param $failures i32) (param $max-failures i32)
    (param $enqueued-at-ms i64) (param $timeout-ms i32)
    (param $metadata i32) (param $metadata-length i32)
    (result i32)
    (local $sum i64)
    (global.set $body (local.get $text))
    (global.set $body-length (local.get $text-length))
    (call $find-command)
    (global.set $key (call $rest))
    (global.set $key-length (i32.sub (i32.add (global.get $body) (global.get $body-length)) (global.get $key)))

    (call $open (i32.const 2080) (select (i32.const 5) (i32.const 0) (call $says (i32.const 1312) (i32.const 6))) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (return (call $refused (i32.const 516)))))
    (global.set $bucket (i32.load (i32.const 516)))

    (if (call $says (i32.const 1216) (i32.const 3))
      (then
        (call $get (global.get $bucket) (global.get $key) (global.get $key-length) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (return (call $refused (i32.const 516)))))
        (if (i32.eqz (i32.load8_u (i32.const 516))) (then (return (call $complete))))
        (return (call $complete-with (i32.load (i32.const 520)) (i32.load (i32.const 524))))))
    (if (call $says (i32.const 1248) (i32.const 3))
      (then
        (call $set (global.get $bucket) (global.get $key) (global.get $key-length)
          (i32.const 8192) (i32.const 4096) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (return (call $refused (i32.const 516)))))
        (return (call $complete))))
    (if (call $says (i32.const 1344) (i32.const 4))
      (then
        (call $delete (global.get $bucket) (global.get $key) (global.get $key-length) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (return (call $refused (i32.const 516)))))
        (call $drop-bucket (global.get $bucket))
        (return (call $complete))))
    (if (call $says (i32.const 1280) (i32.const 4))
      (then
        (call $list (global.get $bucket) (i32.const 0) (i64.const 0) (i32.const 512))
        (if (i32.load8_u (i32.const 512)) (then (return (call $refused (i32.const 520)))))
        (return (call $complete-number (i64.extend_i32_u (i32.load (i32.const 524)))))))

    (if (call $says (i32.const 1184) (i32.const 4))
      (then (call $log (i32.const 2) (i32.const 2064) (i32.const 5))))
    (call $increment (global.get $bucket) (global.get $key) (global.get $key-length) (i64.const 1) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (return (call $refused (i32.const 520)))))
    (local.set $sum (i64.load (i32.const 520)))
    (if (call $says (i32.const 1184) (i32.const 4)) (then (call $count (i32.const 200))))
    (if (call $says (i32.const 1056) (i32.const 3)) (then (return (call $fail-with (i32.const 2048) (i32.const 4)))))
    (if (call $says (i32.const 1120) (i32.const 6)) (then (return (call $reject))))
    (if (call $says (i32.const 1152) (i32.const 5)) (then (return (call $retry))))
    (if (call $says (i32.const 1088) (i32.const 4)) (then (unreachable)))
    (call $complete-number (local.get $sum)))
)
