"""From recipes to numbers beside the published ones: jobs, their stores and runs, results, tables; `mgc reproduce`."""
