use super::*;
use crate::vocab::{Clock as _, SystemClock};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);
/// Long enough for loopback to deliver what is not held.
const A_WHILE: Duration = Duration::from_millis(150);

/// A server that hands over its accepted connections, and a link to it.
async fn link(one_way: Duration) -> (TcpListener, Link) {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = server.local_addr().unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let link = Link::bind(Arc::new(SystemClock), any, vec![target], one_way).await.unwrap();
    (server, link)
}

async fn connected(server: &TcpListener, link: &Link) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(link.address()).await.unwrap();
    let (accepted, _) = timeout(SOON, server.accept()).await.unwrap().unwrap();
    (client, accepted)
}

async fn read_exactly(stream: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut buffer = vec![0; bytes];
    timeout(SOON, stream.read_exact(&mut buffer)).await.unwrap().unwrap();
    buffer
}

/// Everything until the end or the reset of the connection, and whether it was a reset.
async fn read_out(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let ended = timeout(SOON, stream.read_to_end(&mut all)).await.unwrap();
    (all, ended.is_err())
}

async fn first_byte(stream: &TcpStream) {
    stream.peek(&mut [0]).await.unwrap();
}

fn numbered(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| u8::try_from((at * 31 + at / 256) % 251).unwrap()).collect()
}

#[tokio::test]
async fn a_connection_costs_one_round_trip_and_so_does_an_answer() {
    let one_way = Duration::from_millis(40);
    let (server, link) = link(one_way).await;
    let started_at = SystemClock.monotonic();
    let (mut client, mut accepted) = connected(&server, &link).await;
    let open = SystemClock.monotonic() - started_at;
    assert!(open >= one_way * 2 && open < one_way * 5, "{open:?}");

    let asked_at = SystemClock.monotonic();
    client.write_all(b"?").await.unwrap();
    read_exactly(&mut accepted, 1).await;
    accepted.write_all(b"!").await.unwrap();
    read_exactly(&mut client, 1).await;
    let answered = SystemClock.monotonic() - asked_at;
    assert!(answered >= one_way * 2 && answered < one_way * 5, "{answered:?}");
}

#[tokio::test]
async fn bytes_come_whole_and_in_order_and_the_end_after_them() {
    let (server, link) = link(Duration::from_millis(5)).await;
    let (mut client, mut accepted) = connected(&server, &link).await;
    let sent = numbered(3_000_000);
    let send = async {
        for (index, piece) in sent.chunks(70_001).enumerate() {
            let (first, second) = piece.split_at(index % piece.len());
            client.write_all(first).await.unwrap();
            client.write_all(second).await.unwrap();
        }
        client.shutdown().await.unwrap();
    };
    let ((), (got, reset)) = tokio::join!(send, read_out(&mut accepted));
    assert!(got == sent && !reset);
    // Only one direction has ended.
    accepted.write_all(b"late").await.unwrap();
    drop(accepted);
    assert_eq!(read_out(&mut client).await, (b"late".to_vec(), false));
}

#[tokio::test]
async fn a_cut_holds_bytes_ends_and_new_connections_and_healing_delivers_them() {
    let (server, link) = link(Duration::from_millis(1)).await;
    let (mut client, mut accepted) = connected(&server, &link).await;
    link.cut();
    client.write_all(b"held").await.unwrap();
    client.shutdown().await.unwrap();
    accepted.write_all(b"also").await.unwrap();
    let mut second = TcpStream::connect(link.address()).await.unwrap();
    second.write_all(b"new").await.unwrap();
    let came = async {
        tokio::select! {
            () = first_byte(&accepted) => "a byte came through the cut",
            () = first_byte(&client) => "a byte came back through the cut",
            _ = server.accept() => "a connection came through the cut",
        }
    };
    assert_eq!(timeout(A_WHILE, came).await.ok(), None);
    assert!(link.state().cut && link.state().connections == 2);

    link.heal();
    assert_eq!(read_out(&mut accepted).await, (b"held".to_vec(), false));
    assert_eq!(read_exactly(&mut client, 4).await, b"also");
    let (mut accepted, _) = timeout(SOON, server.accept()).await.unwrap().unwrap();
    assert_eq!(read_exactly(&mut accepted, 3).await, b"new");
}

#[tokio::test]
async fn a_new_delay_holds_for_what_is_on_the_way_too() {
    let (server, link) = link(Duration::ZERO).await;
    let (mut client, mut accepted) = connected(&server, &link).await;
    link.delay(SOON * 10);
    client.write_all(b"far").await.unwrap();
    assert!(timeout(A_WHILE, first_byte(&accepted)).await.is_err());
    link.delay(Duration::from_millis(1));
    assert_eq!(read_exactly(&mut accepted, 3).await, b"far");
}

#[tokio::test]
async fn severing_delivers_exactly_its_bytes_and_resets_every_connection_once() {
    for (after, direction) in
        [(0, Direction::Request), (1, Direction::Response), (99_999, Direction::Request)]
    {
        let (server, link) = link(Duration::from_millis(1)).await;
        let (mut client, mut accepted) = connected(&server, &link).await;
        let (mut idle, mut idle_accepted) = connected(&server, &link).await;
        link.sever(direction, after);
        assert!(link.state().sever_pending);
        let sent = numbered(100_000);
        let (from, to) = match direction {
            Direction::Request => (&mut client, &mut accepted),
            Direction::Response => (&mut accepted, &mut client),
        };
        let (_, (got, reset)) = tokio::join!(from.write_all(&sent), read_out(to));
        assert!(reset && got == sent[..usize::try_from(after).unwrap()], "{after}: {}", got.len());
        for stream in [from, &mut idle, &mut idle_accepted] {
            assert_eq!(read_out(stream).await, (Vec::new(), true));
        }
        let (mut client, mut accepted) = connected(&server, &link).await;
        client.write_all(&sent).await.unwrap();
        assert_eq!(read_exactly(&mut accepted, sent.len()).await, sent);
        assert_eq!((link.state().severed, link.state().sever_pending), (1, false));
    }
}

#[tokio::test]
async fn distance_does_not_limit_the_bandwidth() {
    let (server, link) = link(Duration::from_millis(95)).await;
    let (mut client, mut accepted) = connected(&server, &link).await;
    let sent = numbered(16 * 1024 * 1024);
    let started_at = SystemClock.monotonic();
    let send = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    let ((), (got, _)) = tokio::join!(send, read_out(&mut accepted));
    let took = SystemClock.monotonic() - started_at;
    assert!(got == sent);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn a_receiver_that_does_not_read_stops_its_sender() {
    let (server, link) = link(Duration::ZERO).await;
    let (mut client, accepted) = connected(&server, &link).await;
    link.cut();
    let piece = vec![7; 64 * 1024];
    let mut written = 0;
    while let Ok(wrote) = timeout(A_WHILE, client.write(&piece)).await {
        written += wrote.unwrap();
        // Beside the buffer there are the two sockets' own.
        assert!(written < BUFFER_BYTES * 4, "{written}");
    }
    assert!(written >= BUFFER_BYTES, "{written}");
    drop(accepted);
}

#[tokio::test]
async fn a_target_that_is_gone_resets_the_caller_and_another_takes_its_place() {
    let (server, link) = link(Duration::ZERO).await;
    let target = server.local_addr().unwrap();
    drop(server);
    let mut client = TcpStream::connect(link.address()).await.unwrap();
    assert_eq!(read_out(&mut client).await, (Vec::new(), true));

    let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let targets = vec![target, other.local_addr().unwrap()];
    let any = "127.0.0.1:0".parse().unwrap();
    let link = Link::bind(Arc::new(SystemClock), any, targets, Duration::ZERO).await.unwrap();
    for _ in 0..3 {
        connected(&other, &link).await;
    }
}

#[tokio::test]
async fn dropping_a_link_ends_its_connections() {
    let (server, link) = link(Duration::ZERO).await;
    let (mut client, mut accepted) = connected(&server, &link).await;
    drop(link);
    assert!(read_out(&mut client).await.0.is_empty());
    assert!(read_out(&mut accepted).await.0.is_empty());
}
