;; Grows by 33 MiB and keeps them, which is allowed.
(func $misbehave (drop (memory.grow (i32.const 528))))
