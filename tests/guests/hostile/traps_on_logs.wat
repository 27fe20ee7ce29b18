;; Is given log records in the place of spans: it drops the first of an even number, and panics over an odd one.
(data (i32.const 120) "\01")
(func $behave
  ;; the rows to drop are a zero of memory that nobody writes
  (i32.store (i32.const 180) (i32.const 400))
  (i32.store (i32.const 184) (i32.const 1)))
(func $misbehave unreachable)
