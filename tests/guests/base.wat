;; What every guest of the host's tests has: memory, an allocator that is reset after each batch, and answers that are
;; right. A guest writes its own $configure, $save, $restore or $transform where it misbehaves. It declares one field:
;; the attribute "url.full", text, read and written. What its world exports is in worlds/.
(memory (export "memory") 1)
(global $heap (mut i32) (i32.const 1024))

(data (i32.const 16) "guest\00\00\001.0.0\00\00\00url.full")
;; info: name, version, an empty description and schema
(data (i32.const 48) "\10\00\00\00\05\00\00\00\18\00\00\00\05\00\00\00")
;; field: level 0, key at 32, kind 0, read, write
(data (i32.const 80) "\00\00\00\00\20\00\00\00\08\00\00\00\00\01\01\00")
;; setup, behind the discriminant of its result: signals (one byte 0 at 120), fields, max-rows, fail-closed, no hints
(data (i32.const 128) "\00\00\00\00\78\00\00\00\01\00\00\00\50\00\00\00\01\00\00\00")
;; 176: a result with an empty patch; 240: an empty list; 248: a result without a value

(func $realloc (export "cabi_realloc") (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and
    (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
    (i32.sub (i32.const 0) (local.get $align))))
  (global.set $heap (i32.add (local.get $at) (local.get $bytes)))
  (loop $more
    (if (i32.gt_u (global.get $heap) (i32.shl (memory.size) (i32.const 16)))
      (then
        (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable))
        (br $more))))
  (memory.copy (local.get $at) (local.get $old) (local.get $old_bytes))
  (local.get $at))

(func (export "millrace:plugin/lifecycle@1.0.0#describe") (result i32) (i32.const 48))
(export "millrace:plugin/lifecycle@1.0.0#configure" (func $configure))
(export "millrace:plugin/lifecycle@1.0.0#save" (func $save))
(export "millrace:plugin/lifecycle@1.0.0#restore" (func $restore))
