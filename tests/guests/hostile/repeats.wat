;; Answers with a thousand edits that all point at the same megabyte: the host would make a gigabyte of it.
(func $misbehave
  (local $edit i32)
  (drop (memory.grow (i32.const 32)))
  (local.set $edit (i32.const 65536))
  (loop $next
    (i32.store (i32.add (local.get $edit) (i32.const 20)) (i32.const 0))
    (i32.store (i32.add (local.get $edit) (i32.const 24)) (i32.const 1048576))
    (local.set $edit (i32.add (local.get $edit) (i32.const 28)))
    (br_if $next (i32.lt_u (local.get $edit) (i32.const 93536))))
  (i32.store (i32.const 196) (i32.const 65536))
  (i32.store (i32.const 200) (i32.const 1000)))
