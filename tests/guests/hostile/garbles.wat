;; Refuses with a message that is not UTF-8.
(data (i32.const 300) "\ff\fe")
(func $misbehave
  (i32.store (i32.const 176) (i32.const 1))
  (i32.store (i32.const 180) (i32.const 300))
  (i32.store (i32.const 184) (i32.const 2)))
