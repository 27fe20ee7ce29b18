;; Answers with an error, and tries to forge a line of the log with it.
(data (i32.const 300) "no\0ainfo: all is well")
(func $misbehave
  (i32.store (i32.const 176) (i32.const 1))
  (i32.store (i32.const 180) (i32.const 300))
  (i32.store (i32.const 184) (i32.const 20)))
