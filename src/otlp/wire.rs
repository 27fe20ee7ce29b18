//! Protobuf's wire format, read without copying: keys, varints, length-delimited fields.
//!
//! Stricter than the specification where leniency would endanger concatenation: groups (wire types 3 and 4), field
//! number 0, keys in more bytes than they need, and lengths past the end are faults. Knows nothing of OTLP; what was
//! checked before is read with `fields`.

use super::check::Reason;

/// Wire type 0.
pub(super) const VARINT: u8 = 0;
/// Wire type 1.
pub(super) const FIXED64: u8 = 1;
/// Wire type 2.
pub(super) const BYTES: u8 = 2;
/// Wire type 5.
pub(super) const FIXED32: u8 = 5;

/// Takes a varint off the front.
#[inline]
pub(super) fn varint(rest: &mut &[u8]) -> Result<u64, Reason> {
    let Some((&first, tail)) = rest.split_first() else { return Err(Reason::Truncated) };
    if first < 0x80 {
        *rest = tail;
        return Ok(u64::from(first));
    }
    long_varint(rest)
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, Reason> {
    let mut value = 0u64;
    for (index, &byte) in rest.iter().take(10).enumerate() {
        if index == 9 && byte > 1 {
            return Err(Reason::Varint);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *rest = &rest[index + 1..];
            return Ok(value);
        }
    }
    Err(if rest.len() < 10 { Reason::Truncated } else { Reason::Varint })
}

/// Takes a length and that many bytes off the front.
#[inline]
pub(super) fn chunk<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Reason> {
    let length = varint(rest)?;
    match usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) {
        Some((chunk, tail)) => {
            *rest = tail;
            Ok(chunk)
        }
        None => Err(Reason::Overrun),
    }
}

/// Takes `N` bytes off the front.
#[inline]
pub(super) fn fixed<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Reason> {
    let Some((value, tail)) = rest.split_first_chunk::<N>() else { return Err(Reason::Truncated) };
    *rest = tail;
    Ok(*value)
}

/// Takes a field's key off the front: number and wire type.
#[inline]
pub(super) fn key(rest: &mut &[u8]) -> Result<(u32, u8), Reason> {
    let before = rest.len();
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| Reason::FieldNumber)?;
    if number == 0 || number >= 1 << 29 {
        return Err(Reason::FieldNumber);
    }
    if before - rest.len() != varint_bytes(key) {
        return Err(Reason::PaddedKey);
    }
    Ok((number, (key & 7) as u8))
}

/// Passes over a field's value.
#[inline]
pub(super) fn skip(rest: &mut &[u8], wire_type: u8) -> Result<(), Reason> {
    match wire_type {
        VARINT => varint(rest).map(drop),
        FIXED64 => fixed::<8>(rest).map(drop),
        BYTES => chunk(rest).map(drop),
        FIXED32 => fixed::<4>(rest).map(drop),
        _ => Err(Reason::WireType),
    }
}

/// Bytes of a varint.
pub(super) fn varint_bytes(value: u64) -> usize {
    let bits = (64 - (value | 1).leading_zeros()) as usize;
    bits.div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_at_every_length() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                prost::encoding::encode_varint(value, &mut bytes);
                assert_eq!(bytes.len(), varint_bytes(value), "{value}");
                let mut rest = bytes.as_slice();
                assert_eq!(varint(&mut rest), Ok(value));
                assert!(rest.is_empty());
            }
        }
    }

    #[test]
    fn a_varint_over_64_bits_or_cut_short_is_a_fault() {
        assert_eq!(varint(&mut [0xff; 10].as_slice()), Err(Reason::Varint));
        assert_eq!(varint(&mut [0x80; 10].as_slice()), Err(Reason::Varint));
        assert_eq!(varint(&mut [0x80; 9].as_slice()), Err(Reason::Truncated));
        assert_eq!(varint(&mut [].as_slice()), Err(Reason::Truncated));
    }

    #[test]
    fn keys_are_strict() {
        assert_eq!(key(&mut [0x0a].as_slice()), Ok((1, BYTES)));
        assert_eq!(key(&mut [0x02].as_slice()), Err(Reason::FieldNumber));
        assert_eq!(key(&mut [0x8a, 0x00].as_slice()), Err(Reason::PaddedKey));
        assert_eq!(key(&mut [0xff, 0xff, 0xff, 0xff, 0xff, 0x01].as_slice()), Err(Reason::FieldNumber));
        assert_eq!(skip(&mut [0x00].as_slice(), 3), Err(Reason::WireType));
        assert_eq!(skip(&mut [0x00].as_slice(), 4), Err(Reason::WireType));
    }

    #[test]
    fn a_length_past_the_end_is_an_overrun() {
        assert_eq!(chunk(&mut [0x03, 1, 2].as_slice()), Err(Reason::Overrun));
        assert_eq!(
            chunk(&mut [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01].as_slice()),
            Err(Reason::Overrun)
        );
    }
}
