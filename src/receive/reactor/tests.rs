//! The reactor against real sockets on loopback, driven turn by turn; the front balance is checked after every one.

use std::io::{Read, Write};
use std::net::TcpStream;

use self::harness::{Lane, ROW_COUNT, ROWS, RingOutlet, Setting, send_in_background};
use super::accept::Accepted;
use super::*;
use crate::config::Mapping;

mod harness;

const HOSTILE: &[u8] = include_bytes!("../../../tests/data/uberagent/hostile.ndjson");
const DECISIONS: &str = include_str!("../../../tests/data/uberagent/hostile_decisions.tsv");
const SPLUNK: &[u8] = include_bytes!("../../../tests/data/uberagent/wire_splunk_tcp.txt");
const BULK: &[u8] = include_bytes!("../../../tests/data/uberagent/wire_es_bulk.ndjson");

fn first_row() -> &'static [u8] {
    ROWS.split_inclusive(|byte| *byte == b'\n').next().unwrap()
}

/// Reads until the peer closes; `Err` for a reset.
fn read_to_close(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).map(|_| received)
}

#[test]
fn lines_become_records_in_blocks_of_their_source() {
    let mut lane = Lane::new(Setting::default());
    let mut sender = lane.connected();
    sender.write_all(ROWS).unwrap();
    lane.until_received(ROW_COUNT);
    lane.settle();
    assert_eq!((lane.front.encoded.get(), lane.front.received_bytes.get()), (ROW_COUNT, ROWS.len() as u64));
    let ring = lane.ring.lock();
    assert!(ring.blocks.iter().all(|block| block.meta.source == SourceId(3) && !block.payload.is_empty()));
}

#[test]
fn a_row_waits_milliseconds_for_company_and_not_longer() {
    let mut lane = Lane::new(Setting::default());
    let mut sender = lane.connected();
    sender.write_all(first_row()).unwrap();
    lane.until_received(1);
    let received_at = lane.now;
    lane.settle();
    assert!(lane.now - received_at <= BLOCK_AGE);
    assert!(lane.reactor.timeout(lane.now) > BLOCK_AGE, "nothing is open any more");
}

#[test]
fn splunk_csv_is_read_under_the_header_of_its_connection() {
    let mut lane = Lane::new(Setting::default());
    let rows = SPLUNK.split(|byte| *byte == b'\n').filter(|line| !line.is_empty() && !line.starts_with(b"***")).count();
    let mut sender = lane.connected();
    sender.write_all(SPLUNK).unwrap();
    lane.until_received(rows as u64);
    assert_eq!(lane.front.dead_lettered.get(), 0, "{:?}", lane.counters);
    assert!(lane.front.encoded.get() > 300);
    // A header holds for its connection alone.
    let mut other = lane.connected();
    other.write_all(b"1747033126563,smss.exe,6208\r\n").unwrap();
    lane.until_received(rows as u64 + 1);
    assert_eq!(lane.count(|counters| &counters.dead_lettered, "csv_without_header"), 1);
}

#[test]
fn a_header_that_cannot_be_read_does_not_leave_its_rows_to_the_one_before() {
    let mut lane = Lane::new(Setting::default());
    let header = "***SPLUNK*** host=a sourcetype=uberAgent:Process:LogonProcesses";
    let too_long = format!("{header} source={}", "x".repeat(2_000));
    let mut sender = lane.connected();
    sender.write_all(format!("{header}\n{too_long}\n1747033126563,smss.exe\n").as_bytes()).unwrap();
    lane.until_received(2);
    assert_eq!(lane.count(|counters| &counters.dead_lettered, "splunk_header"), 1);
    assert_eq!(lane.count(|counters| &counters.dead_lettered, "csv_without_header"), 1);
}

#[test]
fn bytes_that_could_have_been_a_wrong_protocol_are_not_lost() {
    let mut lane = Lane::new(Setting::default());
    let mut sender = lane.connected();
    for part in [&b"\r"[..], b"\n", b"\r", b"\n{\"create\":{}}\n", first_row()] {
        sender.write_all(part).unwrap();
        lane.step();
    }
    lane.until_received(1);
    assert_eq!((lane.front.encoded.get(), lane.counters.not_records.get()), (1, 3));
}

#[test]
fn documents_of_a_bulk_request_are_rows_and_its_actions_are_not() {
    let mut lane = Lane::new(Setting::default());
    let mut sender = lane.connected();
    sender.write_all(BULK).unwrap();
    lane.until_received(515);
    assert_eq!((lane.counters.not_records.get(), lane.front.dead_lettered.get()), (515, 0));
}

#[test]
fn hostile_lines_are_booked_as_decided_and_the_last_one_is_a_line_at_the_end() {
    let mut lane = Lane::new(Setting::default());
    let decided =
        |outcome: &str| DECISIONS.lines().filter(|line| line.split('\t').nth(1) == Some(outcome)).count() as u64;
    let mut sender = lane.connected();
    sender.write_all(HOSTILE).unwrap();
    drop(sender);
    lane.until("the end of the stream", |lane| lane.reactor.connections() == 0);
    // One is a Splunk header, by which the line after it is a row: the encoder alone would take neither.
    assert_eq!(lane.front.encoded.get(), decided("encoded") + 1);
    assert_eq!(lane.counters.not_records.get(), decided("blank") + 1);
    assert_eq!(lane.front.dead_lettered.get(), decided("dead_letter") - 2);
    assert_eq!(lane.front.received.get() + lane.counters.not_records.get(), 97);
    assert_eq!(lane.dead_letters.len() as u64, lane.front.dead_lettered.get());
}

#[test]
fn a_dead_letter_holds_the_bytes_as_they_were_sent() {
    let mut lane = Lane::new(Setting { dead_letters: 1, ..Setting::default() });
    let sent: &[u8] = br#"{"Sourcetype":"uberAgent:Process:LogonProcesses","a":"\ud800\u0041","event":"\\x"}"#;
    let mut sender = lane.connected();
    sender.write_all(&[sent, b"\r\n", sent, b"\n"].concat()).unwrap();
    lane.until_received(2);
    let letter = lane.dead_letters.try_recv().unwrap();
    assert_eq!((letter.bytes.as_slice(), letter.reason, letter.source), (sent, "hec_envelope", SourceId(3)));
    assert_eq!(lane.counters.dead_letters_not_kept.get(), 1, "a full channel costs the bytes, not the count");
    assert_eq!(lane.front.dead_lettered.get(), 2);
}

#[test]
fn a_sender_may_take_its_time_within_a_line() {
    let mut lane = Lane::new(Setting::default());
    let mut sender = lane.connected();
    for byte in first_row().chunks(1) {
        sender.write_all(byte).unwrap();
        lane.step();
    }
    lane.until_received(1);
    assert_eq!(lane.front.encoded.get(), 1);
}

#[test]
fn a_last_line_without_an_end_is_a_line_and_so_is_one_after_a_byte_order_mark() {
    let mut lane = Lane::new(Setting::default());
    for start in [&b""[..], b"\xef\xbb\xbf", b"\r\n", b" "] {
        let mut sender = lane.connected();
        sender.write_all(&[start, first_row().trim_ascii_end()].concat()).unwrap();
    }
    lane.until_received(4);
    assert_eq!((lane.front.encoded.get(), lane.reactor.connections()), (4, 0));
}

#[test]
fn a_line_that_is_too_long_is_one_dead_letter_and_the_next_one_a_row() {
    let mut setting = Setting::default();
    setting.limits.max_line_bytes = 2048;
    let mut lane = Lane::new(setting);
    let mut sender = lane.connected();
    sender.write_all(&[&vec![b'x'; 300_000][..], b"\n", first_row()].concat()).unwrap();
    lane.until_received(2);
    assert_eq!(lane.count(|counters| &counters.dead_lettered, "line_too_long"), 1);
    assert_eq!(lane.front.encoded.get(), 1);
}

#[test]
fn a_wrong_protocol_is_named_and_closed() {
    let cases: [(&[u8], &str); 6] = [
        (b"POST /_bulk HTTP/1.1\r\nHost: a\r\n\r\n", "http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 ", "tls"),
        (b"\x92\xd7\x00\x68\x20\x9c\x40\x21\x8c\x4e\x80\x81\xa1a\x01", "msgpack"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", "gzip"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n{}\r\n", "proxy_v1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c", "proxy_v2"),
    ];
    let mut lane = Lane::new(Setting::default());
    for (bytes, kind) in cases {
        let mut sender = lane.connected();
        sender.write_all(bytes).unwrap();
        lane.until(kind, |lane| lane.count(|counters| &counters.wrong_protocol, kind) == 1);
        let answer = read_to_close(&mut sender).unwrap();
        assert_eq!(answer.starts_with(b"HTTP/1.1 400 "), kind == "http", "{kind}");
    }
    assert_eq!((lane.front.received.get(), lane.reactor.connections()), (0, 0));
    assert_eq!(lane.count(|counters| &counters.connections.closed, "wrong_protocol"), cases.len() as u64);
}

#[test]
fn a_full_ring_stops_reading_and_nothing_is_lost() {
    let mut lane = Lane::new(Setting { ring_blocks: 2, ring_answers: false, ..Setting::default() });
    let repeats = 40;
    let sending = send_in_background(lane.connected(), ROWS.repeat(repeats));
    lane.until("the ring is full", |lane| lane.reactor.outflow.is_blocked());
    for _ in 0..50 {
        lane.step();
    }
    let (received, waiting_bytes) = (lane.front.received.get(), lane.reactor.outflow.waiting_bytes());
    assert!(lane.ring.lock().parked, "a paused reactor asks for the doorbell");
    assert_eq!(lane.reactor_counters.pauses.get(), 1);
    assert!(waiting_bytes < MAX_WAITING_BYTES / 2, "{waiting_bytes}: what one read closed, no more");
    for _ in 0..50 {
        lane.step();
    }
    assert_eq!(lane.front.received.get(), received, "nothing is read while the ring is full");
    lane.ring.lock().answers = true;
    lane.ring.lock().answer_all();
    lane.until_received(ROW_COUNT * repeats as u64);
    lane.settle();
    assert!(sending.join().unwrap());
}

#[test]
fn a_pause_that_lasts_becomes_an_overload_and_ends_with_room() {
    let mut lane = Lane::new(Setting { ring_blocks: 1, ring_answers: false, ..Setting::default() });
    let mut silent = lane.connected();
    let sending = send_in_background(lane.connected(), ROWS.repeat(20));
    lane.until("the ring is full", |lane| lane.reactor.outflow.is_blocked());
    lane.pass(Duration::from_secs(9));
    assert_eq!((lane.reactor.connections(), lane.reactor_counters.overloads.get()), (2, 0));
    lane.pass(Duration::from_secs(2));
    lane.until("the connections are closed", |lane| lane.reactor.connections() == 0);
    assert_eq!(read_to_close(&mut silent).unwrap(), b"", "closed in order");
    assert!(!lane.reactor.reading.has_ready());
    sending.join().unwrap();
    // New ones are accepted and reset, so that the agent sees its backend as unreachable.
    let mut refused = lane.connect();
    lane.until("it is reset", |lane| lane.count(|counters| &counters.connections.refused, "overload") == 1);
    assert_eq!(read_to_close(&mut refused).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    // Room comes: what was decoded is handed over, and peers are served again.
    lane.ring.lock().answers = true;
    lane.ring.lock().answer_all();
    lane.settle();
    let received = lane.front.received.get();
    let mut again = lane.connected();
    again.write_all(first_row()).unwrap();
    lane.until_received(received + 1);
}

#[test]
fn closing_connections_give_up_what_finds_no_room_and_count_it() {
    let mut lane = Lane::new(Setting { ring_blocks: 1, ring_answers: false, ..Setting::default() });
    let mut full = Vec::new();
    for _ in 0..40 {
        full.push(send_in_background(lane.connected(), ROWS.repeat(2)));
    }
    lane.until("the ring is full", |lane| lane.reactor.outflow.is_blocked());
    full.into_iter().for_each(|sending| {
        assert!(sending.join().unwrap(), "the kernel's buffers take it");
    });
    lane.pass(Duration::from_millis(9_900));
    lane.until("the connections are closed", |lane| lane.reactor.connections() == 0);
    let given_up = lane.count(|counters| &counters.dead_lettered, "overload");
    assert!(given_up > 0);
    assert_eq!(lane.front.encoded.get() + lane.front.dead_lettered.get(), 40 * 2 * ROW_COUNT);
    assert!(lane.reactor.outflow.waiting_bytes() < 2 * MAX_WAITING_BYTES);
}

#[test]
fn an_overload_of_one_lane_closes_the_others() {
    let overload: Arc<Overload> = Arc::default();
    let mut lane = Lane::new(Setting { overload: Arc::clone(&overload), ..Setting::default() });
    let mut sender = lane.connected();
    sender.write_all(first_row()).unwrap();
    overload.declare();
    lane.until("the connection is closed", |lane| lane.reactor.connections() == 0);
    assert_eq!(lane.front.encoded.get(), 1, "what had come is decoded, for here is room");
    overload.withdraw();
    lane.step();
    lane.connected();
}

#[test]
fn silent_connections_and_unfinished_lines_are_closed_in_time() {
    let mut lane = Lane::new(Setting::default());
    let mut unfinished = lane.connected();
    let mut silent = lane.connected();
    silent.write_all(first_row()).unwrap();
    lane.until_received(1);
    // A byte now and then does not make a line younger.
    for _ in 0..32 {
        unfinished.write_all(b"x").ok();
        lane.pass(Duration::from_secs(1));
    }
    lane.until("the unfinished line", |lane| lane.count(|counters| &counters.connections.closed, "partial_line") == 1);
    assert_eq!(lane.count(|counters| &counters.dead_lettered, "partial_line_timeout"), 1);
    lane.pass(Duration::from_secs(260));
    assert_eq!(lane.reactor.connections(), 1);
    lane.pass(Duration::from_secs(20));
    assert_eq!(lane.count(|counters| &counters.connections.closed, "idle"), 1);
    assert_eq!(lane.counters.connections.open.get(), 0);
}

#[test]
fn a_connection_that_we_do_not_read_is_not_silent() {
    let mut setting = Setting { ring_blocks: 1, ring_answers: false, ..Setting::default() };
    setting.limits.pause_limit = Duration::from_secs(10_000);
    let mut lane = Lane::new(setting);
    let mut sender = lane.connected();
    sender.write_all(first_row()).unwrap();
    lane.until("the ring is full", |lane| lane.ring.lock().blocks.len() == 1);
    sender.write_all(first_row()).unwrap();
    lane.pass(Duration::from_secs(400));
    assert_eq!(lane.reactor.connections(), 1);
    lane.ring.lock().answer_all();
    lane.until_received(2);
}

#[test]
fn more_connections_than_may_be_are_reset() {
    let mut setting = Setting::default();
    setting.limits.max_connections = 2;
    let mut lane = Lane::new(setting);
    let _kept = (lane.connected(), lane.connected());
    let mut surplus = lane.connect();
    lane.until("it is reset", |lane| lane.count(|counters| &counters.connections.refused, "max_connections") == 1);
    assert_eq!(read_to_close(&mut surplus).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn two_thousand_connections_between_lines_own_next_to_nothing() {
    const COUNT: usize = 2_000;
    let mut lane = Lane::new(Setting::default());
    let (start, end) = first_row().split_at(100);
    let mut senders: Vec<TcpStream> = (0..COUNT).map(|_| lane.connected()).collect();
    let bytes_left = |lane: &Lane| lane.reactor.reading.buffers_left_bytes();
    senders.iter_mut().for_each(|sender| sender.write_all(start).unwrap());
    lane.until("the beginnings are read", |lane| lane.front.received_bytes.get() == (COUNT * start.len()) as u64);
    let kept = MAX_UNFINISHED_BYTES - bytes_left(&lane);
    assert!(kept <= COUNT * 2048, "{kept} bytes for {COUNT} unfinished lines");
    senders.iter_mut().for_each(|sender| sender.write_all(end).unwrap());
    lane.until_received(COUNT as u64);
    assert_eq!((lane.front.encoded.get(), bytes_left(&lane)), (COUNT as u64, MAX_UNFINISHED_BYTES));
    let connection_bytes = size_of::<connection::Connection>();
    assert!(connection_bytes <= 320, "{connection_bytes} bytes a connection");
}

#[test]
fn draining_takes_what_has_come_and_cuts_what_is_unfinished() {
    let mut lane = Lane::new(Setting::default());
    let mut sender = lane.connected();
    sender.write_all(&[ROWS, b"{\"ProcName\":"].concat()).unwrap();
    lane.stop();
    assert_eq!(lane.front.encoded.get(), ROW_COUNT);
    assert_eq!(lane.ring.lock().records(), ROW_COUNT);
    assert_eq!(lane.count(|counters| &counters.dead_lettered, "cut_by_drain"), 1);
    assert_eq!(read_to_close(&mut sender).unwrap(), b"");
    assert!(TcpStream::connect(lane.address).is_err(), "the listener is closed");
}

#[test]
fn draining_ends_though_a_sender_goes_on() {
    let mut lane = Lane::new(Setting::default());
    let sending = send_in_background(lane.connected(), ROWS.repeat(2_000));
    lane.until("it sends", |lane| lane.front.received.get() > 0);
    let began_at = lane.now;
    lane.stop();
    assert!(lane.now - began_at <= ENDING_LIMIT + Duration::from_millis(20));
    lane.settle();
    // The rest is never read; dropping the socket tells the sender.
    drop(lane);
    sending.join().unwrap();
}

#[test]
fn draining_waits_for_room_but_not_for_ever() {
    let mut lane = Lane::new(Setting { ring_blocks: 1, ring_answers: false, ..Setting::default() });
    let mut sender = lane.connected();
    sender.write_all(ROWS).unwrap();
    lane.until("the ring is full", |lane| lane.reactor.outflow.is_blocked());
    lane.stop.store(true, Ordering::Release);
    lane.until("everything is read", |lane| lane.reactor.connections() == 0);
    assert_eq!(lane.front.encoded.get(), ROW_COUNT);
    lane.pass(Duration::from_secs(9));
    assert_eq!(lane.last_turn, Turn::Going);
    lane.pass(Duration::from_secs(2));
    assert_eq!(lane.last_turn, Turn::Drained);
    assert!(lane.reactor_counters.blocks_lost.get() > 0);
    assert_eq!(lane.ring.lock().records() + lane.reactor_counters.records_lost.get(), ROW_COUNT);
}

#[test]
fn lanes_share_an_inherited_socket() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let lane = |listener| Lane::new(Setting { listeners: vec![listener], ..Setting::default() });
    let mut lanes: Vec<Lane> = Listener::inherited(&socket, 2).unwrap().into_iter().map(lane).collect();
    let mut senders: Vec<TcpStream> = (0..8).map(|_| lanes[0].connect()).collect();
    senders.iter_mut().for_each(|sender| sender.write_all(first_row()).unwrap());
    for _ in 0..1_000 {
        lanes.iter_mut().for_each(Lane::step);
        if lanes.iter().map(|lane| lane.front.received.get()).sum::<u64>() == 8 {
            return;
        }
    }
    panic!("not every connection was taken");
}

#[test]
fn stopping_leaves_peers_behind_an_inherited_socket_to_the_next_process() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = Listener::inherited(&socket, 1).unwrap();
    let mut lane = Lane::new(Setting { listeners, ..Setting::default() });
    lane.stop.store(true, Ordering::Release);
    let mut sender = lane.connect();
    lane.stop();
    sender.write_all(b"x").unwrap();
    let (mut taken, _) = socket.accept().unwrap();
    taken.read_exact(&mut [0]).unwrap();
}

#[test]
fn out_of_descriptors_one_connection_is_reset_with_the_spare() {
    let mut lane = Lane::new(Setting::default());
    let mut sender = lane.connect();
    assert!(matches!(lane.reactor.gates[0].reset_one(), Accepted::Gone));
    assert_eq!(read_to_close(&mut sender).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert!(matches!(lane.reactor.gates[0].reset_one(), Accepted::Nobody));
}

#[test]
fn it_runs_on_a_thread_until_it_is_stopped() {
    let lane = Lane::new(Setting::default());
    let mut sender = lane.connect();
    let Lane { reactor, ring, front, stop, doorbell, .. } = lane;
    let running = std::thread::spawn(move || reactor.run());
    sender.write_all(ROWS).unwrap();
    drop(sender);
    while front.received.get() < ROW_COUNT {
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Release);
    doorbell.ring();
    running.join().unwrap().unwrap();
    assert_eq!(RingOutlet::lock(&ring).records(), ROW_COUNT);
}

#[test]
fn a_door_that_changes_keeps_its_connections_and_one_that_closes_drains_them() {
    let mut lane = Lane::new(Setting::default());
    let limits = Setting::default().limits;
    let mut kept = lane.connected();
    let (half, rest) = first_row().split_at(20);
    kept.write_all(half).unwrap();
    lane.until("half a row is there", |lane| lane.front.received_bytes.get() == 20);
    let before = lane.address;
    let door = lane.door(TcpLimits { max_line_bytes: 30, ..limits.clone() }, Mapping::Original);
    lane.change(Vec::new(), vec![door], true);
    assert!(TcpStream::connect(before).is_err(), "the old socket is closed");
    kept.write_all(rest).unwrap();
    lane.until_received(1);
    assert_eq!(lane.front.encoded.get(), 1, "the row was not cut, nor bounded by the new limit");
    let mut new = lane.connected();
    new.write_all(first_row()).unwrap();
    lane.until_received(2);
    assert_eq!(
        lane.count(|counters| &counters.dead_lettered, "line_too_long"),
        1,
        "new connections have the new limit"
    );

    kept.write_all(ROWS).unwrap();
    lane.change(vec![SourceId(3)], Vec::new(), false);
    assert!(TcpStream::connect(lane.address).is_err());
    for stream in [&mut kept, &mut new] {
        let mut stream = stream.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        // The end of our sending is seen at once; what they have sent is read first.
        lane.until("the connections are closed", |lane| lane.reactor.connections() == 0);
        assert!(read_to_close(&mut stream).is_ok());
    }
    assert_eq!(lane.front.received.get(), 2 + ROW_COUNT);
    assert_eq!(lane.count(|counters| &counters.connections.closed, "removed"), 2);
    lane.settle();

    let door = lane.door(limits, Mapping::Session);
    lane.change(Vec::new(), vec![door], false);
    let mut back = lane.connected();
    back.write_all(first_row()).unwrap();
    lane.until_received(3 + ROW_COUNT);
    lane.settle();
    lane.stop();
}
