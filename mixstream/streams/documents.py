import numpy as np
class DocumentsWriter:
    def __init__(self, d, keep): self.d=d; self.keep=keep; self.w=None
    def __enter__(self):
        import pyarrow as pa, pyarrow.parquet as pq
        self.pa=pa
        self.schema=pa.schema([("id",pa.string()),("begin",pa.int64()),("num_tokens",pa.int64()),("num_bytes",pa.int64()),*((k,pa.float64()) for k in self.keep)])
        self.w=pq.ParquetWriter(self.d/"documents.parquet", self.schema)
        return self
    def __exit__(self,*a): self.w.close()
    def write(self, ids, begins, nt, nb, kept):
        self.w.write_table(self.pa.table([ids, self.pa.array(begins), self.pa.array(nt), nb, *kept], schema=self.schema))
