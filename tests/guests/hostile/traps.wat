;; What a panic comes to, in a function with a name as Rust's compiler gives it.
(func $misbehave (call $_ZN5cards5check17h0123456789abcdefE))
(func $_ZN5cards5check17h0123456789abcdefE unreachable)
