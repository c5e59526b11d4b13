from imgtool.bench.gpu import main

main()
