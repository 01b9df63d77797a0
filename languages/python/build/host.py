"""What the sandbox gives, for `sandhog.py`."""

from componentize_py_types import Err
from wit_world.imports.sandhog_jobs_log_1_0_0 import Level, log
from wit_world.imports.sandhog_jobs_queue_1_0_0 import enqueue
from wit_world.imports.sandhog_jobs_types_1_0_0 import Outcome_Complete, Outcome_Reject, Outcome_Retry, RetryRequest

config = http = increment = state = None
