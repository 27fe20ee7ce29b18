;; Grows over its high-water mark, and then never comes back from save.
(func $misbehave (drop (memory.grow (i32.const 528))))
(func $save (result i32)
  (if (i32.gt_u (memory.size) (i32.const 512)) (then (loop $for_ever (br $for_ever))))
  (i32.const 240))
