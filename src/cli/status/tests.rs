use super::*;

fn report(region: &str, role: Option<Role>, lag: Option<(u64, u64)>) -> TopologyReport {
    let peers = ["ap-south-1", "eu-west-1", "us-east-1"].into_iter().filter(|peer| *peer != region);
    let well = PeerReport {
        reachable: true,
        round_trip_ms: Some(75),
        breaker: "closed".into(),
        failure: None,
    };
    TopologyReport {
        region: region.parse().unwrap(),
        process: format!("process of {region}"),
        role,
        position: role.map(|_| "1-1-5000028".parse().unwrap()),
        position_age_us: Some(1_000),
        epochs: serde_json::from_str(r#"[{"epoch":1,"start_lsn":"0/0","region":"us-east-1"}]"#)
            .unwrap(),
        lag_ms: lag.map(|(ms, _)| ms),
        lag_bytes: lag.map(|(_, bytes)| bytes),
        streaming: role.map(|role| role == Role::Replica),
        starting: false,
        ending: false,
        writable: role == Some(Role::Primary),
        primary: None,
        missed_ms: None,
        lease_ms: (role == Some(Role::Primary)).then_some(2_400),
        promise: None,
        members: None,
        durability: None,
        quarantine: None,
        standbys: None,
        schema: Some("current".into()),
        build: "0.1.0".into(),
        peers: peers.map(|peer| (peer.parse().unwrap(), well.clone())).collect(),
    }
}

fn asked(region: &str, answer: Result<TopologyReport, &str>) -> Asked {
    Asked {
        region: region.parse().unwrap(),
        answer: answer.map_err(str::to_owned),
        took: Duration::from_millis(3),
    }
}

#[test]
fn all_well_can_be_read_at_a_glance() {
    let facts = facts(vec![
        asked("us-east-1", Ok(report("us-east-1", Some(Role::Primary), None))),
        asked("us-east-1", Ok(report("us-east-1", Some(Role::Primary), None))),
        asked("eu-west-1", Ok(report("eu-west-1", Some(Role::Replica), Some((112, 0))))),
        asked("ap-south-1", Ok(report("ap-south-1", Some(Role::Replica), Some((251, 48_400))))),
    ]);
    assert_eq!(facts.primary, Some("us-east-1".parse().unwrap()));
    insta::assert_snapshot!(facts.text(), @r#"
    primary us-east-1, epoch 1

    REGION      ROLE     EPOCH  POSITION   LAG     BEHIND    LINKS     PROCESSES  ROUND TRIP
    ap-south-1  replica  1      0/5000028  251 ms  47.2 KiB  all well  1/1        3 ms
    eu-west-1   replica  1      0/5000028  112 ms  0 B       all well  1/1        3 ms
    us-east-1   primary  1      0/5000028  -       -         all well  2/2        3 ms
    "#);
}

#[test]
fn whom_a_commit_waits_for_is_told_and_two_of_one_name_are_named() {
    let standbys = |names: &[(&str, &str)]| {
        let each = names.iter().map(|(name, acknowledges)| {
            serde_json::json!({ "name": name, "state": "streaming", "acknowledges": acknowledges,
                "flushed": "0/5000028" })
        });
        Some(serde_json::from_value(each.collect()).unwrap())
    };
    let told = |names| {
        let mut primary = report("us-east-1", Some(Role::Primary), None);
        primary.standbys = standbys(names);
        let text = facts(vec![asked("us-east-1", Ok(primary))]).text();
        text.lines().skip(5).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(told(&[("ap-south-1", "quorum"), ("eu-west-1", "quorum")]), @"commits wait for one of ap-south-1 (0/5000028), eu-west-1 (0/5000028)");
    insta::assert_snapshot!(told(&[("ap-south-1", "async"), ("eu-west-1", "async")]), @"commits wait for no standby; ap-south-1 (0/5000028), eu-west-1 (0/5000028) follow");
    insta::assert_snapshot!(told(&[("eu-west-1", "quorum"), ("eu-west-1", "quorum")]), @"
    commits wait for one of eu-west-1 (0/5000028), eu-west-1 (0/5000028)

    ! us-east-1: two standbys go by the name eu-west-1: neither is counted on for a commit
    ");
}

#[test]
fn what_is_not_known_says_so_and_what_is_wrong_is_named() {
    let mut cut_off = report("eu-west-1", Some(Role::Replica), None);
    cut_off.streaming = Some(false);
    let peer = cut_off.peers.get_mut(&"us-east-1".parse::<Region>().unwrap()).unwrap();
    (peer.reachable, peer.breaker) = (false, "open".into());
    let facts = facts(vec![
        asked("us-east-1", Err("no answer (connection refused)")),
        asked("eu-west-1", Ok(cut_off)),
        asked("ap-south-1", Ok(report("ap-south-1", None, None))),
    ]);
    assert_eq!(facts.primary, None);
    insta::assert_snapshot!(facts.text(), @r#"
    no primary, epoch 1

    REGION      ROLE     EPOCH    POSITION   LAG      BEHIND   LINKS                                PROCESSES  ROUND TRIP
    ap-south-1  unknown  1        unknown    unknown  unknown  all well                             1/1        3 ms
    eu-west-1   replica  1        0/5000028  unknown  unknown  us-east-1 unreachable, breaker open  1/1        3 ms
    us-east-1   unknown  unknown  unknown    unknown  unknown  unknown                              0/1        no answer

    ! us-east-1: no answer (connection refused)
    ! no region takes writes; reads go on
    ! ap-south-1: its database does not answer
    ! eu-west-1: its replica receives no log
    "#);
    let json = serde_json::to_value(&facts).unwrap();
    assert_eq!(json["regions"][1]["lag_ms"], serde_json::Value::Null);
}

#[test]
fn behind_a_cut_is_counted_from_the_primary_itself() {
    let mut cut_off = report("eu-west-1", Some(Role::Replica), Some((9_000, 0)));
    cut_off.position = Some("1-1-4fff028".parse().unwrap());
    cut_off.peers.get_mut(&"us-east-1".parse::<Region>().unwrap()).unwrap().reachable = false;
    let seen = |primary| {
        let cut_off = asked("eu-west-1", Ok(cut_off.clone()));
        facts(vec![asked("us-east-1", primary), cut_off]).regions[0].lag_bytes
    };
    assert_eq!(seen(Ok(report("us-east-1", Some(Role::Primary), None))), Some(4_096));
    assert_eq!(seen(Err("no answer")), None);
}

#[test]
fn two_primaries_in_one_epoch_are_shouted_about_and_an_older_one_is_not_the_primary() {
    let primary = |region| report(region, Some(Role::Primary), None);
    let both = facts(vec![
        asked("us-east-1", Ok(primary("us-east-1"))),
        asked("eu-west-1", Ok(primary("eu-west-1"))),
    ]);
    assert!(both.warnings.iter().any(|w| w.contains("more than one primary")));
    let mut newer = primary("eu-west-1");
    let mut start = newer.epochs[0].clone();
    start.epoch = Epoch::new(2).unwrap();
    newer.epochs.push(start);
    let after =
        facts(vec![asked("us-east-1", Ok(primary("us-east-1"))), asked("eu-west-1", Ok(newer))]);
    assert_eq!(after.primary, Some("eu-west-1".parse().unwrap()));
    assert!(
        after.warnings.iter().any(|w| w.contains("us-east-1: has not heard")),
        "{:?}",
        after.warnings
    );
}

#[test]
fn bytes_are_rounded_down_to_a_tenth() {
    let texts = [0, 1_023, 1_024, 1_075, 1_048_575, 1_048_576, 5_368_709_120].map(bytes);
    assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "1.0 KiB", "1023.9 KiB", "1.0 MiB", "5.0 GiB"]);
}
