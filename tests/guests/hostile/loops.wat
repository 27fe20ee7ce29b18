;; Never comes back.
(func $misbehave (loop $for_ever (br $for_ever)))
