;; What is put behind the text of `obedient.wat` to make a handler of it that exports `context` and `failure-hook` too: the world
;; `job-handler-full`. The globals say what these do; `guests::attentive` sets them.
;;
;; set-up: 0 logs `set up`; 1 fails with `away`; 2 traps; 3 never returns; 4 takes all the memory it can get and traps; 5 fails with
;; what the queue answers; 6 fails with `away` until $ready-at, nanoseconds of Unix time.
;; tear-down: 0 logs `torn down`; 2 traps; 3 never returns.
;; job-failed: 0 logs the failure's kind, its message, the job's id, and `buried` if it is; 2 traps; 3 never returns.
(global $set-up i32 (i32.const 0))
(global $tear-down i32 (i32.const 0))
(global $job-failed i32 (i32.const 0))
(global $ready-at i64 (i64.const 0))
(data (i32.const 3072) "set up")
(data (i32.const 3104) "torn down")
(data (i32.const 3136) "buried")
(data (i32.const 3168) "away")

(func $set-up (export "sandhog:jobs/context@1.0.0#set-up") (result i32)
  (call $log (i32.const 2) (i32.const 3072) (i32.const 6))
  (i32.store (i32.const 3200) (i32.const 1))
  (i32.store (i32.const 3204) (i32.const 3168))
  (i32.store (i32.const 3208) (i32.const 4))
  (if (i32.eq (global.get $set-up) (i32.const 1)) (then (return (i32.const 3200))))
  (if (i32.eq (global.get $set-up) (i32.const 2)) (then (unreachable)))
  (if (i32.eq (global.get $set-up) (i32.const 3)) (then (loop $for-ever (br $for-ever))))
  (if (i32.eq (global.get $set-up) (i32.const 4))
    (then (loop $more
      (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
      (unreachable))))
  (if (i32.eq (global.get $set-up) (i32.const 5))
    (then
      (call $enqueue (i32.const 2192) (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 512))
      (i32.store (i32.const 3204) (i32.load (i32.const 516)))
      (i32.store (i32.const 3208) (i32.load (i32.const 520)))
      (return (i32.const 3200))))
  (if (i32.eq (global.get $set-up) (i32.const 6))
    (then
      (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 3216)))
      (if (i64.lt_u (i64.load (i32.const 3216)) (global.get $ready-at)) (then (return (i32.const 3200))))))
  (i32.store (i32.const 3200) (i32.const 0))
  (i32.const 3200))

(func $tear-down (export "sandhog:jobs/context@1.0.0#tear-down")
  (call $log (i32.const 2) (i32.const 3104) (i32.const 9))
  (if (i32.eq (global.get $tear-down) (i32.const 2)) (then (unreachable)))
  (if (i32.eq (global.get $tear-down) (i32.const 3)) (then (loop $for-ever (br $for-ever)))))

(func $job-failed (export "sandhog:jobs/failure-hook@1.0.0#job-failed") (param $of i32)
  (call $log (i32.const 2) (i32.load offset=64 (local.get $of)) (i32.load offset=68 (local.get $of)))
  (call $log (i32.const 2) (i32.load offset=72 (local.get $of)) (i32.load offset=76 (local.get $of)))
  (call $log (i32.const 2) (i32.load (local.get $of)) (i32.load offset=4 (local.get $of)))
  (if (i32.load8_u offset=80 (local.get $of)) (then (call $log (i32.const 2) (i32.const 3136) (i32.const 6))))
  (if (i32.eq (global.get $job-failed) (i32.const 2)) (then (unreachable)))
  (if (i32.eq (global.get $job-failed) (i32.const 3)) (then (loop $for-ever (br $for-ever)))))
