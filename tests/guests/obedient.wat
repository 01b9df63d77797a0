;; A handler that does what the first word of its command says. The command is what stands behind `"do":` in its body, as
;; in `{"do":"result 5"}`, or, where that stands nowhere, the whole body.
;;
;; complete              completes, without a result
;; result TEXT           completes with the text as its result
;; id                    completes with its job's id
;; body                  completes with `body: ` and its job's body
;; job                   completes with its job, all of it, as a JSON object (in which nothing is escaped)
;; fill N                completes with N bytes of the digit 1
;; retry                 asks for a retry in 1,500 ms with the body `again`, because `not yet`
;; retry-fill N          asks for a retry with a body of N bytes
;; retry-plain           asks for a retry, and says nothing else
;; then N COMMAND        asks for a retry in N ms with the command as its body
;; until N COMMAND       does what the command says, but from the N-th attempt on completes
;; fail-before N COMMAND fails with `boom` before the N-th attempt, and from then on does what the command says
;; reject, err           rejects with `never`; fails with `boom`
;; trap, divide, peek    executes `unreachable` in $render; divides by zero; reads beyond the memory
;; spin                  never returns
;; begin-spin            logs `begun` and never returns
;; work N                logs `begun`, counts to N millions and completes
;; report N              logs `begun`, counts to N millions, logs `begun` again and completes
;; grow N, grow-softly N takes N pages of memory; when there are none, traps, or fails with `no memory`
;; recurse               calls itself for ever
;; table N               grows its table by N elements, or traps
;; log N, log-line N     writes N lines; one line of N bytes
;; log-blank N           writes texts of N line ends each, for ever
;; flood                 writes lines for ever
;; follow N COMMAND      enqueues N jobs of the type `follow` and does what the command says
;; chain                 enqueues its own body and completes
;;                       (both fail with what the queue answers, if it refuses)
;; wipe N                takes N pages of memory and fills them, for ever
;; lie                   completes with a result of 1 GiB that it does not have
;; bad-text, bad-log     completes with bytes that are not UTF-8; logs them
;; seen                  completes with how many jobs this instance has seen before
;; panic                 logs `panicked at …` as an error, as a language's runtime does, and traps
;; anything else         traps
(module
  (import "sandhog:jobs/log@1.0.0" "log" (func $log (param $level i32) (param $text i32) (param $length i32)))
  (import "sandhog:jobs/queue@1.0.0" "enqueue" (func $enqueue (param i32 i32 i32 i32) (param $answer i32)))

  ;; 0: the answer. 512: the queue's answer. 1024: words, 32 bytes each. 2048: texts. 65536: what is allocated.
  (memory (export "memory") 2)
  (table $table 1 funcref)
  (global $free (mut i32) (i32.const 65536))
  (global $body (mut i32) (i32.const 0))
  (global $body-length (mut i32) (i32.const 0))
  (global $out (mut i32) (i32.const 0))
  (global $jobs-seen (mut i32) (i32.const 0))

  (data (i32.const 1024) "complete")
  (data (i32.const 1056) "result")
  (data (i32.const 1088) "id")
  (data (i32.const 1120) "fill")
  (data (i32.const 1152) "retry")
  (data (i32.const 1184) "retry-fill")
  (data (i32.const 1216) "reject")
  (data (i32.const 1248) "err")
  (data (i32.const 1280) "trap")
  (data (i32.const 1312) "spin")
  (data (i32.const 1344) "grow")
  (data (i32.const 1376) "grow-softly")
  (data (i32.const 1408) "recurse")
  (data (i32.const 1440) "table")
  (data (i32.const 1472) "log")
  (data (i32.const 1504) "log-line")
  (data (i32.const 1536) "flood")
  (data (i32.const 1568) "chain")
  (data (i32.const 1600) "bad-text")
  (data (i32.const 1632) "bad-log")
  (data (i32.const 1664) "peek")
  (data (i32.const 1696) "seen")
  (data (i32.const 1728) "panic")
  (data (i32.const 1760) "divide")
  (data (i32.const 1792) "body")
  (data (i32.const 1824) "job")
  (data (i32.const 1856) "retry-plain")
  (data (i32.const 1888) "then")
  (data (i32.const 1920) "until")
  (data (i32.const 1952) "begin-spin")
  (data (i32.const 1984) "work")
  (data (i32.const 2016) "fail-before")
  (data (i32.const 2048) "again")
  (data (i32.const 2064) "not yet")
  (data (i32.const 2080) "never")
  (data (i32.const 2096) "boom")
  (data (i32.const 2112) "\ff\fe")
  (data (i32.const 2128) "a line")
  (data (i32.const 2144) "panicked at src/lib.rs:3:5: boom")
  (data (i32.const 2176) "report")
  (data (i32.const 2192) "job")
  (data (i32.const 2208) "no memory")
  (data (i32.const 2224) "\"do\":\"")
  (data (i32.const 2240) "begun")
  (data (i32.const 2256) "body: ")
  ;; What stands before each part of a job.
  (data (i32.const 2304) "{\"id\":\"")
  (data (i32.const 2336) "\",\"job-type\":\"")
  (data (i32.const 2368) "\",\"attempt\":")
  (data (i32.const 2400) ",\"failures\":")
  (data (i32.const 2432) ",\"max-failures\":")
  (data (i32.const 2464) ",\"enqueued-at-ms\":")
  (data (i32.const 2496) ",\"timeout-ms\":")
  (data (i32.const 2528) ",\"metadata\":[")
  (data (i32.const 2560) "],\"body\":")
  (data (i32.const 2592) "[\"\",\"\"],}")
  (data (i32.const 2220) "1")
  ;; More words.
  (data (i32.const 2688) "wipe")
  (data (i32.const 2720) "lie")
  (data (i32.const 2752) "log-blank")
  (data (i32.const 2784) "follow")
  (data (i32.const 2816) "{\"job_type\":\"follow\",\"do\":\"complete\"}")

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

  ;; Lets $body be the command: what stands behind `"do":"` to the next quote, or else the whole body.
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

  ;; The number after the first word.
  (func $number (result i32)
    (local $at i32) (local $number i32)
    (local.set $at (call $rest))
    (block $end
      (loop $next
        (br_if $end (i32.ge_u (local.get $at) (i32.add (global.get $body) (global.get $body-length))))
        (br_if $end (i32.lt_u (i32.load8_u (local.get $at)) (i32.const 48)))
        (local.set $number
          (i32.add
            (i32.mul (local.get $number) (i32.const 10))
            (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (local.get $number))

  ;; Leaves the command's first word out.
  (func $shift
    (local $rest i32)
    (local.set $rest (call $rest))
    (global.set $body-length
      (i32.sub (i32.add (global.get $body) (global.get $body-length)) (local.get $rest)))
    (global.set $body (local.get $rest)))

  ;; Adds a text to what is put together at $out.
  (func $put (param $text i32) (param $length i32)
    (memory.copy (global.get $out) (local.get $text) (local.get $length))
    (global.set $out (i32.add (global.get $out) (local.get $length))))

  ;; Adds a number, in decimal digits.
  (func $put-number (param $number i64)
    (if (i64.ge_u (local.get $number) (i64.const 10))
      (then (call $put-number (i64.div_u (local.get $number) (i64.const 10)))))
    (i32.store8 (global.get $out)
      (i32.add (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10))) (i32.const 48)))
    (global.set $out (i32.add (global.get $out) (i32.const 1))))

  ;; Adds `["NAME","VALUE"]` for each pair, with commas between.
  (func $put-pairs (param $pairs i32) (param $left i32)
    (block $end
      (loop $next
        (br_if $end (i32.eqz (local.get $left)))
        (call $put (i32.const 2592) (i32.const 2))
        (call $put (i32.load (local.get $pairs)) (i32.load offset=4 (local.get $pairs)))
        (call $put (i32.const 2594) (i32.const 3))
        (call $put (i32.load offset=8 (local.get $pairs)) (i32.load offset=12 (local.get $pairs)))
        (call $put (i32.const 2597) (i32.const 2))
        (local.set $pairs (i32.add (local.get $pairs) (i32.const 16)))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (if (local.get $left) (then (call $put (i32.const 2599) (i32.const 1))))
        (br $next))))

  ;; So many bytes of the digit 1.
  (func $filled (param $length i32) (result i32)
    (local $start i32)
    (local.set $start
      (call $allocate (i32.const 0) (i32.const 0) (i32.const 1) (local.get $length)))
    (memory.fill (local.get $start) (i32.const 49) (local.get $length))
    (local.get $start))

  ;; ok(complete(none))
  (func $complete (result i32)
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 0))
    (i32.store (i32.const 8) (i32.const 0))
    (i32.const 0))

  ;; ok(complete(some(text)))
  (func $complete-with (param $text i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 0))
    (i32.store (i32.const 8) (i32.const 1))
    (i32.store (i32.const 12) (local.get $text))
    (i32.store (i32.const 16) (local.get $length))
    (i32.const 0))

  ;; ok(retry({ some(1500), some(body), some("not yet") }))
  (func $retry-with (param $text i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 1))
    (i32.store (i32.const 8) (i32.const 1))
    (i32.store (i32.const 12) (i32.const 1500))
    (i32.store (i32.const 16) (i32.const 1))
    (i32.store (i32.const 20) (local.get $text))
    (i32.store (i32.const 24) (local.get $length))
    (i32.store (i32.const 28) (i32.const 1))
    (i32.store (i32.const 32) (i32.const 2064))
    (i32.store (i32.const 36) (i32.const 7))
    (i32.const 0))

  ;; ok(retry({ some(after-ms), some(body), none }))
  (func $retry-later (param $after-ms i32) (param $text i32) (param $length i32) (result i32)
    (drop (call $retry-with (local.get $text) (local.get $length)))
    (i32.store (i32.const 12) (local.get $after-ms))
    (i32.store (i32.const 28) (i32.const 0))
    (i32.const 0))

  ;; ok(retry({ none, none, none }))
  (func $retry-plainly (result i32)
    (drop (call $retry-later (i32.const 0) (i32.const 0) (i32.const 0)))
    (i32.store (i32.const 8) (i32.const 0))
    (i32.store (i32.const 16) (i32.const 0))
    (i32.const 0))

  ;; ok(reject(text))
  (func $reject-with (param $text i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (i32.const 0))
    (i32.store (i32.const 4) (i32.const 2))
    (i32.store (i32.const 8) (local.get $text))
    (i32.store (i32.const 12) (local.get $length))
    (i32.const 0))

  ;; err(text)
  (func $fail-with (param $text i32) (param $length i32) (result i32)
    (i32.store (i32.const 0) (i32.const 1))
    (i32.store (i32.const 4) (local.get $text))
    (i32.store (i32.const 8) (local.get $length))
    (i32.const 0))

  ;; err(what the queue answered)
  (func $refused (result i32) (call $fail-with (i32.load (i32.const 516)) (i32.load (i32.const 520))))

  (func $render (unreachable))
  (func $recurse (param $depth i32) (result i32)
    (i32.add (call $recurse (i32.add (local.get $depth) (i32.const 1))) (i32.const 1)))
  (func $begin (call $log (i32.const 2) (i32.const 2240) (i32.const 5)))
  (func $count (param $millions i32)
    (local $left i64)
    (local.set $left (i64.mul (i64.extend_i32_u (local.get $millions)) (i64.const 1000000)))
    (loop $next
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $next (i64.gt_s (local.get $left) (i64.const 0)))))
  (func $wipe (param $pages i32)
    (local $start i32)
    (local.set $start (memory.grow (local.get $pages)))
    (if (i32.eq (local.get $start) (i32.const -1)) (then (unreachable)))
    (loop $for-ever
      (memory.fill
        (i32.shl (local.get $start) (i32.const 16))
        (i32.const 1)
        (i32.shl (local.get $pages) (i32.const 16)))
      (br $for-ever)))
  (func $log-lines (param $left i32)
    (block $end
      (loop $next
        (br_if $end (i32.eqz (local.get $left)))
        (call $log (i32.const 2) (i32.const 2128) (i32.const 6))
        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
        (br $next))))

  (func $log-blank (param $length i32)
    (local $text i32)
    (local.set $text (call $allocate (i32.const 0) (i32.const 0) (i32.const 1) (local.get $length)))
    (memory.fill (local.get $text) (i32.const 10) (local.get $length))
    (loop $for-ever
      (call $log (i32.const 2) (local.get $text) (local.get $length))
      (br $for-ever)))

  (func $handle-job (export "sandhog:jobs/handler@1.0.0#handle-job")
    (param $id i32) (param $id-length i32) (param $type i32) (param $type-length i32)
    (param $body i32) (param $body-length i32)
    (param $attempt i32) (param $failures i32) (param $max-failures i32)
    (param $enqueued-at-ms i64) (param $timeout-ms i32)
    (param $metadata i32) (param $metadata-length i32)
    (result i32)
    (local $start i32)
    (global.set $body (local.get $body))
    (global.set $body-length (local.get $body-length))
    (global.set $jobs-seen (i32.add (global.get $jobs-seen) (i32.const 1)))
    (call $find-command)

    (if (call $says (i32.const 1568) (i32.const 5))
      (then
        (call $enqueue (local.get $body) (local.get $body-length) (i32.const 0) (i32.const 0) (i32.const 512))
        (if (i32.load (i32.const 512)) (then (return (call $refused))))
        (return (call $complete))))
    (if (call $says (i32.const 2784) (i32.const 6))
      (then
        (local.set $start (call $number))
        (loop $next
          (call $enqueue (i32.const 2816) (i32.const 37) (i32.const 0) (i32.const 0) (i32.const 512))
          (if (i32.load (i32.const 512)) (then (return (call $refused))))
          (local.set $start (i32.sub (local.get $start) (i32.const 1)))
          (br_if $next (i32.gt_s (local.get $start) (i32.const 0))))
        (call $shift)
        (call $shift)))
    (loop $again
      (if (call $says (i32.const 1920) (i32.const 5))
        (then
          (if (i32.ge_u (local.get $attempt) (call $number))
            (then (return (call $complete))))
          (call $shift)
          (call $shift)
          (br $again))))
    (if (call $says (i32.const 2016) (i32.const 11))
      (then
        (if (i32.lt_u (local.get $attempt) (call $number))
          (then (return (call $fail-with (i32.const 2096) (i32.const 4)))))
        (call $shift)
        (call $shift)))
    (if (call $says (i32.const 1888) (i32.const 4))
      (then
        (local.set $start (call $number))
        (call $shift)
        (call $shift)
        (return (call $retry-later (local.get $start) (global.get $body) (global.get $body-length)))))
    (if (call $says (i32.const 1856) (i32.const 11))
      (then (return (call $retry-plainly))))
    (if (call $says (i32.const 1952) (i32.const 10))
      (then (call $begin) (loop $for-ever (br $for-ever))))
    (if (call $says (i32.const 1984) (i32.const 4))
      (then
        (call $begin)
        (call $count (call $number))
        (return (call $complete))))
    (if (call $says (i32.const 2176) (i32.const 6))
      (then
        (call $begin)
        (call $count (call $number))
        (call $begin)
        (return (call $complete))))
    (if (call $says (i32.const 1792) (i32.const 4))
      (then
        (local.set $start
          (call $allocate (i32.const 0) (i32.const 0) (i32.const 1) (i32.add (local.get $body-length) (i32.const 6))))
        (global.set $out (local.get $start))
        (call $put (i32.const 2256) (i32.const 6))
        (call $put (local.get $body) (local.get $body-length))
        (return (call $complete-with (local.get $start) (i32.sub (global.get $out) (local.get $start))))))
    (if (call $says (i32.const 1824) (i32.const 3))
      (then
        ;; Room enough for any job but a malicious one, whose test this is not.
        (local.set $start
          (call $allocate (i32.const 0) (i32.const 0) (i32.const 1) (i32.add (local.get $body-length) (i32.const 65536))))
        (global.set $out (local.get $start))
        (call $put (i32.const 2304) (i32.const 7))
        (call $put (local.get $id) (local.get $id-length))
        (call $put (i32.const 2336) (i32.const 14))
        (call $put (local.get $type) (local.get $type-length))
        (call $put (i32.const 2368) (i32.const 12))
        (call $put-number (i64.extend_i32_u (local.get $attempt)))
        (call $put (i32.const 2400) (i32.const 12))
        (call $put-number (i64.extend_i32_u (local.get $failures)))
        (call $put (i32.const 2432) (i32.const 16))
        (call $put-number (i64.extend_i32_u (local.get $max-failures)))
        (call $put (i32.const 2464) (i32.const 18))
        (call $put-number (local.get $enqueued-at-ms))
        (call $put (i32.const 2496) (i32.const 14))
        (call $put-number (i64.extend_i32_u (local.get $timeout-ms)))
        (call $put (i32.const 2528) (i32.const 13))
        (call $put-pairs (local.get $metadata) (local.get $metadata-length))
        (call $put (i32.const 2560) (i32.const 9))
        (call $put (local.get $body) (local.get $body-length))
        (call $put (i32.const 2600) (i32.const 1))
        (return (call $complete-with (local.get $start) (i32.sub (global.get $out) (local.get $start))))))

    (if (call $says (i32.const 1024) (i32.const 8))
      (then (return (call $complete))))
    (if (call $says (i32.const 1056) (i32.const 6))
      (then
        (return
          (call $complete-with (call $rest)
            (i32.sub (i32.add (global.get $body) (global.get $body-length)) (call $rest))))))
    (if (call $says (i32.const 1088) (i32.const 2))
      (then (return (call $complete-with (local.get $id) (local.get $id-length)))))
    (if (call $says (i32.const 1120) (i32.const 4))
      (then (return (call $complete-with (call $filled (call $number)) (call $number)))))
    (if (call $says (i32.const 1152) (i32.const 5))
      (then (return (call $retry-with (i32.const 2048) (i32.const 5)))))
    (if (call $says (i32.const 1184) (i32.const 10))
      (then (return (call $retry-with (call $filled (call $number)) (call $number)))))
    (if (call $says (i32.const 1216) (i32.const 6))
      (then (return (call $reject-with (i32.const 2080) (i32.const 5)))))
    (if (call $says (i32.const 1248) (i32.const 3))
      (then (return (call $fail-with (i32.const 2096) (i32.const 4)))))
    (if (call $says (i32.const 1280) (i32.const 4))
      (then (call $render)))
    (if (call $says (i32.const 1760) (i32.const 6))
      (then (drop (i32.div_u (local.get $attempt) (i32.const 0)))))
    (if (call $says (i32.const 1664) (i32.const 4))
      (then (drop (i32.load (i32.const 0xfffffff0)))))
    (if (call $says (i32.const 1312) (i32.const 4))
      (then (loop $for-ever (br $for-ever))))
    (if (call $says (i32.const 1344) (i32.const 4))
      (then
        (if (i32.eq (memory.grow (call $number)) (i32.const -1)) (then (unreachable)))
        (return (call $complete-with (i32.const 2220) (i32.const 1)))))
    (if (call $says (i32.const 1376) (i32.const 11))
      (then
        (if (i32.eq (memory.grow (call $number)) (i32.const -1))
          (then (return (call $fail-with (i32.const 2208) (i32.const 9)))))
        (return (call $complete-with (i32.const 2220) (i32.const 1)))))
    (if (call $says (i32.const 1408) (i32.const 7))
      (then (drop (call $recurse (i32.const 0)))))
    (if (call $says (i32.const 1440) (i32.const 5))
      (then
        (if (i32.eq (table.grow $table (ref.null func) (call $number)) (i32.const -1)) (then (unreachable)))
        (return (call $complete-with (i32.const 2220) (i32.const 1)))))
    (if (call $says (i32.const 1472) (i32.const 3))
      (then (call $log-lines (call $number)) (return (call $complete-with (i32.const 2220) (i32.const 1)))))
    (if (call $says (i32.const 1504) (i32.const 8))
      (then
        (call $log (i32.const 2) (call $filled (call $number)) (call $number))
        (return (call $complete-with (i32.const 2220) (i32.const 1)))))
    (if (call $says (i32.const 1536) (i32.const 5))
      (then (loop $for-ever (call $log-lines (i32.const 1000)) (br $for-ever))))
    (if (call $says (i32.const 1600) (i32.const 8))
      (then (return (call $complete-with (i32.const 2112) (i32.const 2)))))
    (if (call $says (i32.const 1632) (i32.const 7))
      (then (call $log (i32.const 2) (i32.const 2112) (i32.const 2))))
    (if (call $says (i32.const 1696) (i32.const 4))
      (then
        (global.set $out (i32.const 600))
        (call $put-number (i64.extend_i32_u (i32.sub (global.get $jobs-seen) (i32.const 1))))
        (return (call $complete-with (i32.const 600) (i32.sub (global.get $out) (i32.const 600))))))
    (if (call $says (i32.const 1728) (i32.const 5))
      (then (call $log (i32.const 4) (i32.const 2144) (i32.const 32))))
    (if (call $says (i32.const 2688) (i32.const 4)) (then (call $wipe (call $number))))
    (if (call $says (i32.const 2752) (i32.const 9)) (then (call $log-blank (call $number))))
    (if (call $says (i32.const 2720) (i32.const 3))
      (then (return (call $complete-with (i32.const 0) (i32.const 0x40000000)))))
    (unreachable))
)
