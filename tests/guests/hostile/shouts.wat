;; Writes a thousand lines to the log, of 60 KiB each.
(import "millrace:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
(func $misbehave
  (local $line i32)
  (loop $next
    (call $log (i32.const 2) (i32.const 2048) (i32.const 61440))
    (local.set $line (i32.add (local.get $line) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $line) (i32.const 1000)))))
