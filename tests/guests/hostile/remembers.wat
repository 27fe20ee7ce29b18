;; Fills its state with values of 64,000 bytes until it is told that there is no room; more than sixteen are too many.
(import "millrace:plugin/state@1.0.0" "set" (func $set (param i32 i32 i32 i32 i64 i32)))
(func $misbehave
  (local $key i32)
  (loop $next
    (i32.store (i32.const 300) (i32.add (i32.const 0x30303030) (local.get $key)))
    (call $set (i32.const 300) (i32.const 4) (i32.const 1024) (i32.const 64000) (i64.const 0) (i32.const 304))
    (local.set $key (i32.add (local.get $key) (i32.const 1)))
    (br_if $next (i32.eqz (i32.load8_u (i32.const 304)))))
  (if (i32.gt_u (local.get $key) (i32.const 17)) (then unreachable)))
