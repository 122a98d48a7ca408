//! A region's Redis.

use super::{account::Account, layout::write_private, ports::local};
use anyhow::Context as _;
use std::{path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

pub fn url(password: &str, port: u16) -> String {
    format!("redis://:{password}@{}", local(port))
}

/// Writes its settings; it keeps nothing on disk, as nothing there must survive it.
pub fn configure(
    file: &Path,
    port: u16,
    password: &str,
    account: Option<Account>,
) -> anyhow::Result<()> {
    // Keeping its command line is what it is recognised by.
    let text = format!(
        "bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\n\
         maxmemory 256mb\nmaxmemory-policy noeviction\ndaemonize no\nset-proc-title no\n"
    );
    write_private(file, text.as_bytes()).with_context(|| file.display().to_string())?;
    Ok(Account::give(account, file)?)
}

pub fn server(program: &Path, account: Option<Account>, file: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").current_dir("/").arg(file);
    Account::apply(account, &mut command);
    command
}

/// Whether it answers.
pub async fn answers(port: u16, password: &str) -> Result<(), String> {
    let ask = async {
        let mut stream = TcpStream::connect(local(port)).await?;
        stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match tokio::time::timeout(Duration::from_secs(1), ask).await {
        Ok(Ok(answer)) if &answer == b"+OK\r\n+PONG\r\n" => Ok(()),
        Ok(Ok(answer)) => Err(String::from_utf8_lossy(&answer).into_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".into()),
    }
}
