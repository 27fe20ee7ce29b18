;; What a panic comes to where the plugin's kit writes it to the log first.
(import "millrace:plugin/log@1.0.0" "log" (func $log (param i32 i32 i32)))
(data (i32.const 300) "panicked at src/lib.rs:7:\0ano host")
(func $misbehave (call $log (i32.const 4) (i32.const 300) (i32.const 33)) unreachable)
