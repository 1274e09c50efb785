//! As much of telnet as a monitor needs (RFC 854): the server echoes and suppresses go-ahead, and has no other option.

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const IP: u8 = 244;
const SE: u8 = 240;

/// RFC 857.
const ECHO: u8 = 1;
/// RFC 858.
const SUPPRESS_GO_AHEAD: u8 = 3;

/// What a server says first: with these two a client sends each key as it is typed.
pub const OFFER: [u8; 6] = [IAC, WILL, ECHO, IAC, WILL, SUPPRESS_GO_AHEAD];

/// Where in a command the stream is.
#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Data,
    Command,
    /// The option of this verb follows.
    Option(u8),
    Subnegotiation,
    /// After IAC within it.
    SubnegotiationCommand,
}

/// Takes the commands out of what a client sends.
#[derive(Default)]
pub struct Telnet {
    place: Place,
}

impl Telnet {
    /// Takes a byte: a byte of data, if it is one. What the client is to be told goes to `answer`.
    pub fn feed(&mut self, byte: u8, answer: &mut Vec<u8>) -> Option<u8> {
        let (place, data) = match (self.place, byte) {
            (Place::Data, IAC) => (Place::Command, None),
            (Place::Data, byte) => (Place::Data, Some(byte)),
            (Place::Command, IAC) => (Place::Data, Some(IAC)),
            (Place::Command, SB) => (Place::Subnegotiation, None),
            (Place::Command, DO | DONT | WILL | WONT) => (Place::Option(byte), None),
            // Interrupt Process: Ctrl-C.
            (Place::Command, IP) => (Place::Data, Some(3)),
            (Place::Command, _) => (Place::Data, None),
            (Place::Option(verb), option) => {
                // Refusals are not answered, nor is agreement with what was offered.
                match verb {
                    DO if ![ECHO, SUPPRESS_GO_AHEAD].contains(&option) => {
                        answer.extend([IAC, WONT, option]);
                    }
                    WILL => answer.extend([IAC, DONT, option]),
                    _ => {}
                }
                (Place::Data, None)
            }
            (Place::Subnegotiation, IAC) => (Place::SubnegotiationCommand, None),
            (Place::Subnegotiation, _) => (Place::Subnegotiation, None),
            (Place::SubnegotiationCommand, SE) => (Place::Data, None),
            (Place::SubnegotiationCommand, _) => (Place::Subnegotiation, None),
        };
        self.place = place;
        data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_answered_and_taken_out() {
        let mut telnet = Telnet::default();
        let mut answer = Vec::new();
        let sent = [
            &b"a"[..],
            &[
                IAC,
                DO,
                ECHO,
                IAC,
                DO,
                SUPPRESS_GO_AHEAD,
                IAC,
                DO,
                24,
                IAC,
                WILL,
                31,
            ],
            &[
                IAC, SB, 31, 0, IAC, IAC, 24, IAC, SE, IAC, DONT, 5, IAC, WONT, 6, IAC, 241,
            ],
            b"b",
            &[IAC, IP, IAC, IAC],
        ]
        .concat();
        let data: Vec<u8> = sent
            .iter()
            .filter_map(|byte| telnet.feed(*byte, &mut answer))
            .collect();
        assert_eq!(data, [b'a', b'b', 3, 255]);
        assert_eq!(answer, [IAC, WONT, 24, IAC, DONT, 31]);
    }
}
