"""A one-node Slurm of the tests' own, started and stopped by hand, on free ports, its state in a scratch folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

CONFIG = """\
ClusterName=sousa
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={slurmctld}
SlurmdPort={slurmd}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
MpiDefault=none
ReturnToService=2
KillWait=6
MinJobAge=300
UnkillableStepTimeout=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,sched_min_interval=100000,bf_interval=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=6000 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=15 PreemptMode=REQUEUE
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
{accounting}
"""
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd}
AccountingStoragePass={folder}/munge/socket
"""
DATABASE = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={slurmdbd}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
NEEDED_FOR_ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "mariadb", "sacct", "sacctmgr")


def lacking(accounting: bool) -> str | None:
    """Why no such cluster can be started here, or None."""
    names = (*NEEDED, *NEEDED_FOR_ACCOUNTING) if accounting else NEEDED
    if missing := [name for name in names if program(name) is None]:
        return f"not installed: {', '.join(missing)} (Debian: slurm-wlm munge mariadb-server slurmdbd)"
    return None if os.geteuid() == 0 else "a test cluster is started as root"


def program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Cluster:
    """The daemons of one node, and the environment in which Slurm's commands talk to them."""

    def __init__(self, folder: Path, *, accounting: bool) -> None:
        self.folder = folder
        self.accounting = accounting
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []
        names = ("slurmctld", "slurmd", "slurmdbd", "mariadb")
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))

    def start(self) -> None:
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o711)
        facts = {"folder": self.folder, "host": socket.gethostname().split(".")[0], **self._ports}
        accounting = ACCOUNTING.format(**facts) if self.accounting else ""
        (self.folder / "slurm.conf").write_text(CONFIG.format(**facts, accounting=accounting))
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        self._start_munge()
        if self.accounting:
            self._start_database()
            (self.folder / "slurmdbd.conf").write_text(DATABASE.format(**facts))
            (self.folder / "slurmdbd.conf").chmod(0o600)
            self._daemon("slurmdbd", "-D")
            self._wait("slurmdbd", lambda: self.command("sacctmgr", "-n", "show", "cluster"), 30)
            self.command("sacctmgr", "-i", "add", "cluster", "sousa")
        self._daemon("slurmctld", "-D", "-i", "-f", str(self.folder / "slurm.conf"))
        self._daemon("slurmd", "-D", "-f", str(self.folder / "slurm.conf"))
        self._wait("the node", self._idle, 60)

    def _idle(self) -> bool:
        return self.command("sinfo", "--noheader", "--partition=main", "--format=%t").stdout.split() == ["idle"]

    def _start_munge(self) -> None:
        place = self.folder / "munge"
        (place / "key").write_bytes(os.urandom(128))
        (place / "key").chmod(0o600)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        words = [f"--{option}={place / name}" for option, name in files.items()]
        self._daemon("munged", "--foreground", "--force", *words)
        self._wait("munged", lambda: (place / "socket").exists(), 10)

    def _start_database(self) -> None:
        data, socket_file = self.folder / "mariadb", self.folder / "mariadb.socket"
        subprocess.run(
            [
                str(program("mariadb-install-db")),
                "--no-defaults",
                f"--datadir={data}",
                "--user=root",
                "--auth-root-authentication-method=normal",
                "--skip-test-db",
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
        self._daemon(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            f"--socket={socket_file}",
            f"--port={self._ports['mariadb']}",
            "--bind-address=127.0.0.1",
            "--innodb-buffer-pool-size=64M",
        )
        # The database is created here: a client library whose first connection failed for want of it (11.8.9's) is of
        # no use any more.
        sql = "CREATE DATABASE slurm_acct; CREATE USER slurm@'%' IDENTIFIED BY 'slurm'; GRANT ALL ON *.* TO slurm@'%'"
        client = [str(program("mariadb")), "--no-defaults", "--user=root", f"--socket={socket_file}", "-e"]
        self._wait("MariaDB", lambda: subprocess.run([*client, "SELECT 1"], capture_output=True), 60)
        subprocess.run([*client, sql], check=True, capture_output=True, timeout=30)

    def _daemon(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as output:
            self._processes.append(
                subprocess.Popen(
                    [str(program(name)), *words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            )

    def _wait(self, what: str, ready: Callable[[], object], seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            answer = ready()
            if answer.returncode == 0 if isinstance(answer, subprocess.CompletedProcess) else answer:
                return
            time.sleep(0.2)
        words = "\n".join(f"{file.name}: {file.read_text()[-2000:]}" for file in self.folder.glob("*.out"))
        raise AssertionError(f"{what} did not start within {seconds:g} seconds\n{words}")

    def stop(self) -> None:
        """End every job, then the daemons, the last first."""
        with suppress(subprocess.TimeoutExpired):
            self.command("scancel", "--user=root")
            end = time.monotonic() + 20
            while self.command("squeue", "--noheader").stdout.strip() and time.monotonic() < end:
                time.sleep(0.3)
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def command(self, *words: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        """One of Slurm's commands, talking to this cluster."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, env=environment)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def a_cluster(factory: pytest.TempPathFactory, *, accounting: bool) -> Iterator[Cluster]:
    """What a fixture yields from: a running cluster, stopped at its end; a skip where Slurm is lacking."""
    if reason := lacking(accounting=accounting):
        pytest.skip(reason)
    started = Cluster(factory.mktemp("slurm") / "s", accounting=accounting)
    try:
        started.start()
        yield started
    finally:
        started.stop()
