//! A client of the HTTP API that says what it is told to, sound or not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{TestRunner, message, patience};
use crate::eventually;

/// The HTTP API of a runner.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(crate) address: SocketAddr,
}

/// What it answers.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// A connection that is used for several requests.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

// === impl Api ===

impl Api {
    /// Of the last process of a runner, as its log says.
    pub(crate) fn of(runner: &TestRunner) -> Api {
        let said = |line: &Value| {
            let (_, address) = message(line).split_once("the HTTP API listens on http://")?;
            address.parse().ok()
        };
        let address = eventually!(runner.log_by_process().last().and_then(|lines| lines.iter().find_map(said)));
        Api { address }
    }

    /// A connection.
    pub(crate) fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).expect("the runner listens");
        stream.set_read_timeout(Some(patience())).expect("it is not zero");
        stream.set_nodelay(true).expect("it is open");
        Connection { reader: BufReader::new(stream) }
    }

    /// `GET PATH`.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    /// `POST PATH` with a body of JSON, or with none.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let json: &[(&str, &str)] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
        self.send("POST", path, json, body)
    }

    /// Any request.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        self.connect().send(method, path, headers, body)
    }

    /// Enqueues a job of its body; answers its id.
    pub(crate) fn enqueue(&self, body: &str) -> String {
        let answer = self.post("/v1/jobs", body);
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().expect("it has an id").to_owned()
    }

    /// The job, when it has ended.
    pub(crate) fn ended(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/jobs/{id}/wait?timeout=1m")).json();
        assert_eq!(answer["done"], true, "{answer}");
        answer["job"].clone()
    }
}

// === impl Connection ===

impl Connection {
    /// A request, and its answer.
    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str("host: localhost\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        self.write(format!("{head}\r\n{body}").as_bytes()).expect("the runner reads");
        self.answer().expect("the runner answers")
    }

    /// Any bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// One answer.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let (status, headers) = self.head()?;
        let body = self.body(&headers)?;
        Ok(Answer { status, headers, body })
    }

    /// The head of an answer.
    pub(crate) fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer: {first:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_lowercase(), value.trim().to_owned())),
                None => return Ok((status, headers)),
            }
        }
    }

    fn body(&mut self, headers: &[(String, String)]) -> io::Result<Vec<u8>> {
        let value = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let mut body = Vec::new();
        match (value("transfer-encoding"), value("content-length")) {
            (Some(_), _) => {
                while let Some(piece) = self.piece()? {
                    body.extend(piece);
                }
            }
            (None, Some(length)) => {
                body.resize(length.parse().expect("it is a number"), 0);
                self.reader.read_exact(&mut body)?;
            }
            (None, None) => {}
        }
        Ok(body)
    }

    /// The next piece of a body in pieces; none at its end.
    pub(crate) fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.line()?;
        let length = usize::from_str_radix(&line, 16).map_err(|_| io::Error::other(format!("no piece: {line:?}")))?;
        let mut piece = vec![0; length + 2];
        self.reader.read_exact(&mut piece)?;
        piece.truncate(length);
        Ok((length > 0).then_some(piece))
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// The stream itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }
}

// === impl Answer ===

impl Answer {
    /// The body, as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body, as lines of JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The word for what went wrong.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}
