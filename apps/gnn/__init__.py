"""Graph neural networks over the ranks of a job: data sets, published settings, and the job that trains."""
