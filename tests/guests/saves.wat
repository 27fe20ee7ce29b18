;; Hands over one byte, and takes nothing else.
(data (i32.const 300) "\2a")
(data (i32.const 304) "\2c\01\00\00\01\00\00\00")
(func $save (result i32) (i32.const 304))
(func $restore (param $saved i32) (param $bytes i32) (result i32)
  (if (i32.ne (local.get $bytes) (i32.const 1)) (then unreachable))
  (if (i32.ne (i32.load8_u (local.get $saved)) (i32.const 0x2a)) (then unreachable))
  (i32.const 248))
