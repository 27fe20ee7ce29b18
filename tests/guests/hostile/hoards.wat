;; Takes memory until there is no more, then gives up as allocators do.
(func $misbehave
  (loop $more
    (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
  unreachable)
