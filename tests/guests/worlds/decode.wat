;; Bytes: a chunk is used up and makes nothing. It misbehaves when the number of bytes is odd.
;; $met counts the connections that it was told of.
(global $met (mut i32) (i32.const 0))
(func (export "millrace:plugin/decoder@1.0.0#opened") (param i64 i32 i32) (result i32)
  (global.set $met (i32.add (global.get $met) (i32.const 1)))
  (i32.const 248))
(func (export "millrace:plugin/decoder@1.0.0#closed") (param i64))
(func (export "cabi_post_millrace:plugin/decoder@1.0.0#decode") (param i32)
  (global.set $heap (i32.const 1024)))
(func (export "millrace:plugin/decoder@1.0.0#decode") (param i64) (param $chunk i32) (param $bytes i32) (param $last i32) (result i32)
  (i32.store (i32.const 180) (local.get $bytes))
  (call $transform (local.get $bytes) (i32.const 0) (i32.const 0)))
