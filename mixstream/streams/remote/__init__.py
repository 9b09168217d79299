"""Object stores behind one small interface: a folder of objects, named by its URL.

urls         which URLs are taken, what they name, and what must not be told of them
retry        what can pass, how long it is waited for, and what is told meanwhile
environment  where a store is and how it is reached, as the environment says
faults       what went wrong with a request, in one line without secrets
credentials  of S3's profiles, which obstore does not read
opening      a store is opened once a process
obstores     S3, GCS, Azure, HTTP and files, through obstore
downloaders  what only streaming's downloaders know: whole objects, to a file
folder       RemoteFolder: all of the above behind one name
hub          what datasets of the Hugging Face hub hold
file         RemoteFile: an object that is read as a file is
"""

from mixstream.streams.remote.file import RemoteFile, look
from mixstream.streams.remote.folder import RemoteFolder
from mixstream.streams.remote.hub import is_hub, list_hub
from mixstream.streams.remote.obstores import Body
from mixstream.streams.remote.retry import Fault, Patience, Trying
from mixstream.streams.remote.urls import is_url

__all__ = ["Body", "Fault", "Patience", "RemoteFile", "RemoteFolder", "Trying", "is_hub", "is_url", "list_hub", "look"]
