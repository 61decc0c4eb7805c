//! The network may deliver a datagram twice, or late. The server passes each
//! message on once.

/// Which sequence numbers have come from a member: the highest one, and one bit
/// for each of the 64 numbers up to it.
///
/// After 96, 98, 100 and 99:
///
/// ```text
///  bit        63   62            4    3    2    1    0
///           +----+----+-- ... -+----+----+----+----+----+
///  seen     |  0 |  0 |        |  1 |  0 |  1 |  1 |  1 |
///           +----+----+-- ... -+----+----+----+----+----+
///  number     37   38           96   97   98   99  100 = highest
/// ```
///
/// The next number may be:
///
/// - 102, above the window. All bits move 2 places to the left, what falls off at
///   the left end is forgotten, 102 is the highest number now, and its bit, bit 0,
///   is set. The message is new.
/// - 97, in the window, and its bit is 0. The bit is set. The message comes late,
///   but it is new.
/// - 98, in the window, and its bit is 1. The message comes twice, and is dropped.
/// - 36, below the window. Nobody can tell any more whether the message came
///   before, so it is dropped.
///
/// IPsec and DTLS do the same (RFC 4303, section 3.4.3; RFC 6347, section
/// 4.1.2.6), but they move their window only for a datagram that has proved to
/// be genuine. Ours proves nothing: a forged TEXT with the number 4294967295 moves
/// the window to the end, and what its member sends after that is dropped.
#[derive(Default)]
pub struct ReplayWindow {
    highest: u32,
    /// Bit `n` is set if the number `highest - n` has come.
    seen: u64,
}

impl ReplayWindow {
    /// Notes a sequence number. Returns false if the message must be dropped: its
    /// number has come before, or is 64 or more below the highest.
    pub fn accept(&mut self, number: u32) -> bool {
        // A shift by 64 or more is no shift in Rust, but here it means 0.
        let shift = |bits: u64, places: u32| bits.checked_shl(places).unwrap_or(0);
        if number > self.highest {
            self.seen = shift(self.seen, number - self.highest);
            self.highest = number;
        }
        let bit = shift(1, self.highest - number);
        let is_new = bit & !self.seen != 0;
        self.seen |= bit;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of these numbers is accepted, in this order.
    fn accepted<const N: usize>(window: &mut ReplayWindow, numbers: [u32; N]) -> [bool; N] {
        numbers.map(|number| window.accept(number))
    }

    #[test]
    fn a_number_is_accepted_once_in_whatever_order() {
        let mut window = ReplayWindow::default();
        assert_eq!(accepted(&mut window, [5, 4, 7, 6, 1]), [true; 5]);
        assert_eq!(accepted(&mut window, [5, 4, 7, 6, 1]), [false; 5]);
        assert_eq!(accepted(&mut window, [0, 0]), [true, false]);
    }

    #[test]
    fn the_window_has_64_numbers() {
        let mut window = ReplayWindow::default();
        assert_eq!(accepted(&mut window, [136, 200, 137, 136]), [true, true, true, false]);
        assert_eq!(accepted(&mut window, [264, 200, 201, 263]), [true, false, true, true]);
    }

    #[test]
    fn the_highest_number_moves_the_window_to_the_end() {
        let mut window = ReplayWindow::default();
        assert_eq!(accepted(&mut window, [1, u32::MAX, u32::MAX - 63]), [true; 3]);
        assert_eq!(accepted(&mut window, [2, u32::MAX, u32::MAX - 64]), [false; 3]);
    }
}
