//! A question to the name server, as a resolver asks it for a user: with the user's address (RFC 7871).

use crate::lab::ports::local;
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, Question, RCODE, TYPE,
    rdata::{OPT, OPTCode, RData},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::net::UdpSocket;

const PATIENCE: Duration = Duration::from_secs(2);
const ANSWER_BYTES_MAX: usize = 1_232;
/// The option that carries a user's network, and the family of IPv4 in it.
const CLIENT_SUBNET: u16 = 8;
const IPV4: u16 = 1;
/// Each question has a socket of its own, which hears nobody but the server: nothing else tells answers apart.
const ID: u16 = 1;

/// The addresses of `name` for a user at `address`.
///
/// # Errors
/// With what came instead, within two seconds.
pub async fn resolve(
    server: SocketAddr,
    name: &str,
    address: Ipv4Addr,
) -> Result<Vec<Ipv4Addr>, String> {
    let question = question(name, address).map_err(|error| error.to_string())?;
    let asked = async {
        let socket = UdpSocket::bind(local(0)).await?;
        socket.connect(server).await?;
        socket.send(&question).await?;
        let mut answer = vec![0; ANSWER_BYTES_MAX];
        let length = socket.recv(&mut answer).await?;
        answer.truncate(length);
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(answer)) => addresses(&answer),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

fn question(name: &str, address: Ipv4Addr) -> simple_dns::Result<Vec<u8>> {
    let mut packet = Packet::new_query(ID);
    let name = Name::new(name)?;
    packet.questions.push(Question::new(name, TYPE::A.into(), CLASS::IN.into(), false));
    // Family, bits told, bits that the answer is for (none in a question), address.
    let subnet = [&IPV4.to_be_bytes()[..], &[32, 0], &address.octets()].concat();
    let option = OPTCode { code: CLIENT_SUBNET, data: subnet.into() };
    let udp_packet_size = u16::try_from(ANSWER_BYTES_MAX).unwrap_or(u16::MAX);
    *packet.opt_mut() = Some(OPT { opt_codes: vec![option], udp_packet_size, version: 0 });
    packet.build_bytes_vec()
}

fn addresses(answer: &[u8]) -> Result<Vec<Ipv4Addr>, String> {
    let packet = Packet::parse(answer).map_err(|error| error.to_string())?;
    if packet.id() != ID || !packet.has_flags(PacketFlag::RESPONSE) {
        return Err("no answer to the question".to_owned());
    }
    if packet.rcode() != RCODE::NoError {
        return Err(format!("{:?}", packet.rcode()));
    }
    let address = |rdata: &RData<'_>| match rdata {
        RData::A(told) => Some(Ipv4Addr::from(told.address)),
        _ => None,
    };
    Ok(packet.answers.iter().filter_map(|record| address(&record.rdata)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simple_dns::{ResourceRecord, rdata::A};

    #[test]
    fn a_question_carries_the_users_address_and_an_answer_is_read_back() {
        let asked = question("godwit.example", Ipv4Addr::new(198, 51, 100, 105)).unwrap();
        let packet = Packet::parse(&asked).unwrap();
        let option = &packet.opt().unwrap().opt_codes[0];
        assert_eq!((option.code, &option.data[..]), (8, &[0, 1, 32, 0, 198, 51, 100, 105][..]));

        assert!(addresses(&asked).is_err(), "a question is no answer");
        let mut answer = Packet::new_reply(ID);
        let name = Name::new("godwit.example").unwrap();
        let told = A { address: u32::from(Ipv4Addr::new(127, 0, 0, 12)) };
        answer.answers.push(ResourceRecord::new(name, CLASS::IN, 60, RData::A(told)));
        let told = addresses(&answer.build_bytes_vec().unwrap()).unwrap();
        assert_eq!(told, [Ipv4Addr::new(127, 0, 0, 12)]);

        *answer.rcode_mut() = RCODE::ServerFailure;
        assert!(addresses(&answer.build_bytes_vec().unwrap()).is_err());
        assert!(addresses(b"nothing of the kind").is_err());
    }
}
