import subprocess
import sys


def test_options_load_without_torch():
    code = "import sys, som.evaluation.config as c; c.EvaluationConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
