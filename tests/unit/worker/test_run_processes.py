import subprocess
import sys

from prometheus_client import CollectorRegistry

from nanochat_worker.run_processes import RunProcessesCollector

# Uses 0.15 s of CPU in a child of its own (the system counts hundredths), then says so and waits for its input to end.
WORK = "import time, sys\nwhile time.process_time() < 0.15: pass\nprint(flush=True)\nsys.stdin.read()"
NESTED = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORK!r}])"


def test_descendants_count_while_they_run_and_their_time_after_it() -> None:
    registry = CollectorRegistry()
    registry.register(RunProcessesCollector())

    def cpu_s() -> float:
        return registry.get_sample_value("nanochat_runs_cpu_seconds_total") or 0.0

    def memory_bytes() -> float:
        return registry.get_sample_value("nanochat_runs_resident_memory_bytes") or 0.0

    before_s, before_bytes = cpu_s(), memory_bytes()
    with subprocess.Popen([sys.executable, "-c", NESTED], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        running_s = cpu_s()
        assert running_s - before_s >= 0.1
        assert memory_bytes() - before_bytes > 5e6
        process.communicate()
    assert cpu_s() >= running_s
    assert memory_bytes() - before_bytes < 5e6
