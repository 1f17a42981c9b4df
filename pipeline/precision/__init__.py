"""Which precision ships: candidates measured on the device, judged on the validation cut, the fastest that holds."""
