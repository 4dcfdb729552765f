use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use ota_proto::admin::v1::{Device, DeviceState, RunningRelease};
use prost_types::Timestamp;

use super::*;

/// What was written, readable while the printer holds the writer.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        anstream::adapter::strip_str(&text).to_string()
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

fn printed(format: Format, headers: bool, print: impl FnOnce(&mut Printer) -> Result<(), Failure>) -> String {
    let paper = Paper::default();
    print(&mut Printer::new(format, headers, now, Box::new(paper.clone()))).unwrap();
    paper.text()
}

fn devices() -> Vec<Device> {
    let ago = |seconds: i64| Some(Timestamp { seconds: 1_800_000_000 - seconds, nanos: 0 });
    vec![
        Device {
            name: "devices/01890a5d-ac96-774b-bcce-b302099a8057".to_owned(),
            state: DeviceState::Accepted.into(),
            hardware: "rpi4".to_owned(),
            labels: HashMap::from([("site".to_owned(), "lab".to_owned()), ("ring".to_owned(), "a".to_owned())]),
            running: vec![RunningRelease {
                package: "gateway-fw".to_owned(),
                version: "1.2.0".to_owned(),
                ..RunningRelease::default()
            }],
            online: true,
            last_seen_time: ago(30),
            create_time: ago(7200),
            ..Device::default()
        },
        Device {
            name: "devices/01890a5d-ac97-774b-8cce-b302099a1111".to_owned(),
            state: DeviceState::Pending.into(),
            hardware: "x86\u{1b}[2J".to_owned(),
            create_time: ago(300),
            ..Device::default()
        },
    ]
}

#[test]
fn a_table_has_upper_case_headers_and_no_lines() {
    let expected = "\
DEVICE                                 STATE      ONLINE   HARDWARE   RUNNING            SEEN   AGE
01890a5d-ac96-774b-bcce-b302099a8057   accepted   yes      rpi4       gateway-fw@1.2.0   30s    120m
01890a5d-ac97-774b-8cce-b302099a1111   pending    no       x86\u{fffd}[2J    -                  -      5m
";
    assert_eq!(printed(Format::Table, true, |printer| printer.list(&devices())), expected);
}

#[test]
fn headers_can_be_left_out_and_more_columns_shown() {
    let text = printed(Format::Wide, false, |printer| printer.list(&devices()[..1]));
    assert_eq!(
        text,
        "01890a5d-ac96-774b-bcce-b302099a8057   accepted   yes   rpi4   gateway-fw@1.2.0   30s   120m   ring=a,site=lab   -   -\n"
    );
}

#[test]
fn names_are_those_of_the_api() {
    let text = printed(Format::Name, true, |printer| printer.list(&devices()));
    assert_eq!(text, "devices/01890a5d-ac96-774b-bcce-b302099a8057\ndevices/01890a5d-ac97-774b-8cce-b302099a1111\n");
}

#[test]
fn json_lists_are_one_document_with_the_apis_names_in_the_apis_order() {
    let text = printed(Format::Json, true, |printer| printer.list(&devices()[..1]));
    let expected = r#"{
  "devices": [
    {
      "name": "devices/01890a5d-ac96-774b-bcce-b302099a8057",
      "state": "DEVICE_STATE_ACCEPTED",
      "hardware": "rpi4",
      "hardwareId": "",
      "labels": {
        "ring": "a",
        "site": "lab"
      },
      "running": [
        {
          "package": "gateway-fw",
          "version": "1.2.0",
          "payload": ""
        }
      ],
      "online": true,
      "lastSeenTime": "2027-01-15T07:59:30Z",
      "agentVersion": "",
      "createTime": "2027-01-15T06:00:00Z",
      "enrollToken": "",
      "etag": "",
      "keySha256": "",
      "identityConflicts": [],
      "trustFault": ""
    }
  ]
}
"#;
    assert_eq!(text, expected);
}

#[test]
fn an_empty_list_is_an_empty_document_and_no_table() {
    let none: [Device; 0] = [];
    assert_eq!(printed(Format::Json, true, |printer| printer.list(&none)), "{\n  \"devices\": []\n}\n");
    assert_eq!(printed(Format::Table, true, |printer| printer.list(&none)), "");
    assert_eq!(printed(Format::Jsonl, true, |printer| printer.list(&none)), "");
}

#[test]
fn json_lines_and_yaml_carry_the_same_values() {
    let line = printed(Format::Jsonl, true, |printer| printer.list(&devices()[1..]));
    assert_eq!(line.lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&line).unwrap();
    let text = printed(Format::Yaml, true, |printer| printer.one(&devices()[1]));
    let yaml: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(json, yaml);
    assert!(text.starts_with("name: devices/01890a5d-ac97"), "{text}");
}

#[test]
fn what_was_done_is_a_sentence_for_people_and_the_thing_for_programs() {
    let device = &devices()[0];
    let text = printed(Format::Table, true, |printer| printer.done(device, "approved"));
    assert_eq!(text, "devices/01890a5d-ac96-774b-bcce-b302099a8057 approved\n");
    let text = printed(Format::Name, true, |printer| printer.done(device, "approved"));
    assert_eq!(text, "devices/01890a5d-ac96-774b-bcce-b302099a8057\n");
    let text = printed(Format::Jsonl, true, |printer| printer.done(device, "approved"));
    assert!(text.starts_with("{\"name\":"), "{text}");
}

#[test]
fn rows_that_follow_line_up_with_those_before_and_have_no_second_header() {
    let text = printed(Format::Table, true, |printer| {
        let mut widths = Widths::default();
        printer.stream(&devices()[..1], &mut widths)?;
        printer.stream(&devices()[1..], &mut widths)
    });
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[1].find("accepted"), lines[2].find("pending"), "{text}");
    assert_eq!(lines[0].find("SEEN"), lines[1].find("30s"), "{text}");
}

#[test]
fn only_ages_change_a_row_without_a_change() {
    fn later() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_009_999, 0).unwrap()
    }
    let printer = |clock| Printer::new(Format::Table, true, clock, Box::new(io::sink()));
    let mut device = devices().remove(0);
    let before = printer(now).fingerprint(&device);
    assert_eq!(printer(later).fingerprint(&device), before);
    device.online = false;
    assert_ne!(printer(later).fingerprint(&device), before);
}

#[test]
fn facts_are_one_to_a_line_and_lists_below_one_another() {
    let text = printed(Format::Table, true, |printer| {
        let facts = [Fact::new("Device", "a"), Fact::new("Labels", "x=1\ny=2"), Fact::new("Agent", "")];
        printer.answer(&Document::plain(serde_json::Value::Null), "", &facts)
    });
    assert_eq!(text, "Device:   a\nLabels:   x=1\n          y=2\nAgent:    -\n");
}

#[test]
fn a_full_pipe_end_is_reported_as_a_reader_that_left() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for format in [Format::Table, Format::Json, Format::Jsonl, Format::Yaml, Format::Name] {
        let failure = Printer::new(format, true, now, Box::new(Closed)).list(&devices()).unwrap_err();
        assert_eq!(failure.exit().code(), 0, "{format:?}");
    }
}
