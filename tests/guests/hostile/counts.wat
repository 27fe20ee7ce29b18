;; Counts a batch, in its state and in a counter of its own, and then fails. Whoever counts well sees nothing of it.
(import "millrace:plugin/metrics@1.0.0" "counter" (func $counter (param i32 i32 i32)))
(import "millrace:plugin/metrics@1.0.0" "add" (func $add (param i32 i64)))
(import "millrace:plugin/state@1.0.0" "set" (func $set (param i32 i32 i32 i32 i64 i32)))
(import "millrace:plugin/state@1.0.0" "get" (func $get (param i32 i32 i32)))
(func $configure (param i32 i32) (result i32)
  (call $counter (i32.const 16) (i32.const 5) (i32.const 304))
  (i32.const 128))
(func $behave
  (call $get (i32.const 16) (i32.const 5) (i32.const 304))
  (if (i32.load8_u (i32.const 304)) (then unreachable))
  (call $add (i32.const 0) (i64.const 1)))
(func $misbehave
  (call $add (i32.const 0) (i64.const 1000))
  (call $set (i32.const 16) (i32.const 5) (i32.const 16) (i32.const 5) (i64.const 0) (i32.const 304))
  unreachable)
