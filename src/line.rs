//! Lines of text: reading one without trusting its length, and cleaning it
//! before anybody else gets to see it.
//!
//! Knows bytes and [`BufRead`], no sockets. Introduced by step 03 (reading)
//! and step 05 (limits and cleaning).
//!
//! Lessons: [03_client](../../../../lessons/03_client.md),
//! [05_threaded_server](../../../../lessons/05_threaded_server.md).

use std::borrow::Cow;
use std::io::{self, BufRead, Read};

/// The longest line that a chat server takes, in bytes without the line end.
pub const MAX_LINE_BYTES: usize = 4096;

/// The longest line that a client takes, in bytes without the line end.
/// More than a server's limit: the server puts a name before each line, and
/// replaces a byte that is not UTF-8 by the three bytes of U+FFFD.
pub const MAX_CLIENT_LINE_BYTES: usize = 64 * 1024;

/// What [`read_line`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineRead {
    /// A line within the limit.
    Line,
    /// A line over the limit. Its first bytes were kept, as many as the limit
    /// says; the rest was thrown away up to the line end.
    TooLong,
    /// The end of the stream: there is no further line.
    End,
}

/// Reads the next line into `line`, without its line end.
///
/// A line ends with LF; a CR before it is no part of the line. Bytes before the
/// end of the stream are a line even without LF. The bytes need not be UTF-8 ([`clean`] sees to that).
///
/// Keeps at most `limit` + 2 bytes of a line, however long it is.
///
/// # Errors
///
/// The errors of reading, except [`Interrupted`](io::ErrorKind::Interrupted):
/// then the read is tried again.
///
/// ```
/// use socket_chat::line::{LineRead, read_line};
/// let mut input: &[u8] = b"hello\r\nfar too long\nbye";
/// let mut line = Vec::new();
/// assert_eq!(read_line(&mut input, 5, &mut line)?, LineRead::Line);
/// assert_eq!(line, b"hello");
/// assert_eq!(read_line(&mut input, 5, &mut line)?, LineRead::TooLong);
/// assert_eq!(line, b"far t");
/// assert_eq!(read_line(&mut input, 5, &mut line)?, LineRead::Line);
/// assert_eq!(line, b"bye");
/// assert_eq!(read_line(&mut input, 5, &mut line)?, LineRead::End);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read_line(
    input: &mut impl BufRead,
    limit: usize,
    line: &mut Vec<u8>,
) -> io::Result<LineRead> {
    line.clear();
    // Two more bytes than the limit: the line end may be CR LF.
    let most = limit as u64 + 2;
    if input.by_ref().take(most).read_until(b'\n', line)? == 0 {
        return Ok(LineRead::End);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() > limit {
        // The line goes on, or the stream ends here: both are found out by
        // looking for the line end.
        input.skip_until(b'\n')?;
    }
    if line.len() > limit {
        line.truncate(limit);
        return Ok(LineRead::TooLong);
    }
    Ok(LineRead::Line)
}

/// Makes text of a line that a stranger sent: what is not UTF-8 becomes
/// U+FFFD, and what a terminal would obey instead of showing it is taken out.
///
/// A terminal obeys two groups of characters:
///
/// - control characters: C0 (U+0000 to U+001F; the tab is kept), DEL (U+007F)
///   and C1 (U+0080 to U+009F). ECMA-48 gives a meaning to many of them, and to
///   the sequences that begin with `ESC`;
/// - characters that change the direction of writing: U+202A to U+202E and
///   U+2066 to U+2069 (Unicode UAX #9, section 2). They can make one line look
///   like another.
///
/// ```
/// use socket_chat::line::clean;
/// assert_eq!(clean(b"caf\xc3\xa9\tbar"), "caf\u{e9}\tbar");
/// assert_eq!(clean(b"\x1b[31mred\x07"), "[31mred");
/// assert_eq!(clean(b"\xff"), "\u{fffd}");
/// ```
pub fn clean(line: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(line);
    // Nearly every line is clean already. Looking at bytes finds that out
    // several times faster than looking at characters.
    if !text.bytes().any(may_be_obeyed) {
        return text;
    }
    Cow::Owned(text.chars().filter(|c| !is_obeyed(*c)).collect())
}

/// Whether a terminal obeys `c` rather than showing it.
pub fn is_obeyed(c: char) -> bool {
    c.is_control() && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether `byte` may begin a character that [`is_obeyed`]: a control
/// character of ASCII, or the first byte in UTF-8 of a character of C1 or of one
/// that changes the direction of writing.
fn may_be_obeyed(byte: u8) -> bool {
    byte < b' ' && byte != b'\t' || matches!(byte, 0x7f | 0xc2 | 0xe2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `input` with a limit of 4 bytes, read `size` bytes at a time.
    fn lines(input: &[u8], size: usize) -> Vec<(LineRead, Vec<u8>)> {
        let mut input = io::BufReader::with_capacity(size, input);
        let (mut all, mut line) = (Vec::new(), Vec::new());
        loop {
            match read_line(&mut input, 4, &mut line).expect("a slice can be read") {
                LineRead::End => return all,
                found => all.push((found, line.clone())),
            }
        }
    }

    #[test]
    fn a_line_is_the_same_however_it_arrives() {
        use LineRead::{Line, TooLong};
        let input = b"1234\n1234\r\n12345\n12345\r\n\n\r\n\r\r\n123456789\nab\rc\n1234\r";
        let expected: [(LineRead, &[u8]); 10] = [
            (Line, b"1234"),
            (Line, b"1234"),
            (TooLong, b"1234"),
            (TooLong, b"1234"),
            (Line, b""),
            (Line, b""),
            (Line, b"\r"),
            (TooLong, b"1234"),
            (Line, b"ab\rc"),
            (TooLong, b"1234"),
        ];
        for size in 1..=input.len() {
            let found = lines(input, size);
            let found: Vec<_> = found.iter().map(|(f, l)| (*f, l.as_slice())).collect();
            assert_eq!(found, expected, "read {size} bytes at a time");
        }
    }

    #[test]
    fn clean_takes_out_exactly_what_a_terminal_obeys() {
        for c in '\0'..=char::MAX {
            let obeyed = matches!(c, '\0'..='\u{8}' | '\u{a}'..='\u{1f}' | '\u{7f}'..='\u{9f}')
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            let line = format!("a{c}b");
            let expected = if obeyed { "ab" } else { &line };
            assert_eq!(clean(line.as_bytes()), expected, "{c:?}");
        }
    }
}
