"""A stand-in for tensorflow_model_server: the same to all that a config manager can see.

It is built from the mechanism of TensorFlow Serving 2.20, not from a list of its answers: the same
loops, the same locks held over the same work, so that what follows from them (reloads that never
return, versions that are never tried again, polls frozen by one missing folder) follows here too.

    flags            the real flags by their real names
    core             reload, labels, lookup                     (ServerCore)
    source           base paths -> versions to serve, per poll   (FileSystemStoragePathSource)
    aspired          versions to serve -> one action per tick    (AspiredVersionsManager)
    manager          loads and unloads, in-flight requests       (BasicManager, LoaderHarness)
    monitor          what GetModelStatus shows                   (ServableStateMonitor)
    loader           a folder -> a model, or the loader's error
    session          the same with TensorFlow, which predicts
    pacing           loads that last as long as real ones
    api, rpc, rest   the answers, over gRPC and over HTTP
    server, program  start-up
"""
