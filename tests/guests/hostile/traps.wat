;; What a panic comes to.
(func $misbehave unreachable)
