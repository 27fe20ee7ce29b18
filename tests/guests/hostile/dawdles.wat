;; Takes about a second to be configured, and has to be again after each of its traps.
(func $configure (param i32 i32) (result i32)
  (local $left i32)
  (local.set $left (i32.const 1000000000))
  (loop $more
    (local.set $left (i32.sub (local.get $left) (i32.const 1)))
    (br_if $more (local.get $left)))
  (i32.const 128))
(func $misbehave unreachable)
